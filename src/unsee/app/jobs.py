"""Long work in a thread. The user sees its progress, and can stop it between two steps."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from unsee.errors import InputError
from unsee.progress import Progress


class Stopped(Exception):
    """The user stopped the work."""


@dataclass(frozen=True)
class News:
    """What happened: a stage that went on, something to show, or the end.

    shown   what the work shows meanwhile, such as two pictures; None if nothing new
    result  of work that is done
    problem one line, for work that ended without a result
    """

    stage: str = ""
    done: int = 0
    total: int = 0
    shown: Any = None
    result: Any = None
    problem: str = ""

    @property
    def last(self) -> bool:
        return self.result is not None or bool(self.problem)


Show = Callable[[Any], None]
Work = Callable[[Progress, Show], Any]
"""Called with a Progress, which raises when the work is stopped, and with what shows things. Never returns None."""


@dataclass
class Desk:
    """Does one piece of work at a time."""

    _stop: threading.Event = field(default_factory=threading.Event)
    _busy: threading.Lock = field(default_factory=threading.Lock)

    def stop(self) -> None:
        """Stop what is being done, at its next step."""
        self._stop.set()

    def watch(self, work: Work) -> Iterator[News]:
        """Do work, and yield its news as they come; the last one has the result, or says why there is none."""
        news: queue.SimpleQueue[News] = queue.SimpleQueue()

        def progress(stage: str, done: int, total: int) -> None:
            if self._stop.is_set():
                raise Stopped
            news.put(News(stage, done, total))

        def run() -> None:
            try:
                news.put(News(result=work(progress, lambda shown: news.put(News(shown=shown)))))
            except Stopped:
                news.put(News(problem="stopped; what was finished is kept, and Erase continues from there"))
            except InputError as error:
                news.put(News(problem=str(error)))
            except Exception as error:
                news.put(News(problem=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"))

        with self._busy:
            self._stop.clear()
            thread = threading.Thread(target=run, daemon=True)
            thread.start()
            try:
                while True:
                    one = news.get()
                    while not one.last and not news.empty():  # only the newest of a stage, but all that is to be seen
                        if one.shown is not None:
                            yield one
                        one = news.get()
                    yield one
                    if one.last:
                        return
            finally:  # nobody watches any more
                self._stop.set()
                thread.join()
