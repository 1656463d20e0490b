"""The progress of a run: bars on a terminal, a line now and then in a file or a pipe."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total) as work goes on."""


def no_progress(stage: str, done: int, total: int) -> None:
    """The Progress that shows nothing."""


EVERY = 10.0
"""Seconds between two lines, at least."""


@dataclass
class Stage:
    """One stage of a run; times are of time.monotonic.

    first  units that were done when it began: an earlier run may have made some
    at     when the last unit was done
    until  when the next stage began; None as long as it is the last
    """

    name: str
    total: int
    first: int
    done: int
    began: float
    at: float
    until: float | None = None

    def now(self, done: int, total: int, now: float) -> None:
        """Take in how far it is; a count that falls is a stage that begins anew."""
        if done < self.done:
            self.first, self.began = done, now
        if done != self.done:
            self.at = now
        self.done, self.total, self.until = done, total, None

    def passed(self, now: float) -> float:
        """Seconds since it began. The last stage goes on: what comes after its last unit may take long too."""
        return (now if self.until is None else self.until) - self.began

    def left(self, now: float) -> float | None:
        """Seconds that are left, as fast as the units so far; None before the first of them."""
        if self.done >= self.total:
            return 0.0
        if self.done <= self.first:
            return None
        return max(0.0, (self.at - self.began) / (self.done - self.first) * (self.total - self.done) - (now - self.at))


def clock(seconds: float | None) -> str:
    """h:mm:ss, as short as it can be."""
    if seconds is None:
        return "-:--"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


@contextmanager
def bars() -> Iterator[Progress]:
    """Within the context a `progress` that shows how far each stage is and the time that is left, on stderr.

    >>> with unsee.bars() as show: edit = unsee.UCE()(pipe, "church", progress=show)
    """
    from rich.console import Console

    console = Console(stderr=True, quiet=not speaks())
    stages: dict[str, Stage] = {}
    show = _drawn(console) if console.is_terminal else _written()
    with show as shown:

        def progress(name: str, done: int, total: int) -> None:
            now = time.monotonic()
            if name not in stages:
                stages[name] = Stage(name, total, done, done, now, now)
            for other in stages.values():
                if other.name != name and other.until is None:
                    other.until = now
            stages[name].now(done, total, now)
            shown(stages[name])

        yield progress


@contextmanager
def starting() -> Iterator[None]:
    """Shows on a terminal that libraries are imported, which takes seconds; diffusers shows by itself what it loads."""
    with bars() as progress:
        progress("start", 0, 1)
        yield
        progress("start", 1, 1)


@contextmanager
def _drawn(console: Any) -> Iterator[Any]:
    """Bars that go on moving while a unit is computed."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn
    from rich.text import Text

    class Times(ProgressColumn):
        def render(self, task: Any) -> Text:
            stage, now = task.fields["stage"], time.monotonic()
            return Text(f"{clock(stage.passed(now))} passed, {clock(stage.left(now))} left")

    progress = Progress(
        TextColumn("{task.description:<8}"), BarColumn(), MofNCompleteColumn(), Times(), console=console
    )
    tasks: dict[str, Any] = {}

    def show(stage: Stage) -> None:
        if stage.name not in tasks:
            progress.start()
            tasks[stage.name] = progress.add_task(stage.name, total=stage.total, stage=stage)
        progress.update(tasks[stage.name], completed=stage.done, total=stage.total)

    try:
        yield show
    finally:
        if tasks:
            progress.stop()


@contextmanager
def _written() -> Iterator[Any]:
    """A line where a stage begins, where it ends, and every EVERY seconds between; none for what is a single unit."""
    said: dict[str, float] = {}

    def show(stage: Stage) -> None:
        now = time.monotonic()
        since = now - said.get(stage.name, -EVERY)
        if stage.total < 2 or not speaks() or since < (1.0 if stage.done >= stage.total else EVERY):
            return
        said[stage.name] = now
        times = f"{clock(stage.passed(now))} passed, {clock(stage.left(now))} left"
        print(f"{stage.name} {stage.done} of {stage.total}, {times}", file=sys.stderr, flush=True)

    yield show


def speaks() -> bool:
    """Whether this is the one of many processes that prints."""
    return os.environ.get("RANK", "0") == "0"
