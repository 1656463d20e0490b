"""Nobody waits in silence: every stage is shown before its first unit, on a terminal, in a pipe and in a file."""

import os
import pty
import select
import subprocess
import sys
import time
from itertools import pairwise

import pytest

from unsee import progress
from unsee.progress import Stage, bars, clock


def test_the_time_that_is_left_is_known_from_the_first_unit() -> None:
    stage = Stage("fit", total=10, first=0, done=0, began=100.0, at=100.0)
    assert stage.left(130.0) is None
    stage.now(1, 10, 110.0)
    assert (stage.passed(114.0), stage.left(110.0), stage.left(114.0)) == (14.0, 90.0, 86.0)
    assert stage.left(300.0) == 0  # slower than so far
    stage.now(10, 10, 200.0)
    assert (stage.left(250.0), stage.passed(250.0)) == (0, 150.0)  # what comes after it takes time, too
    stage.now(0, 4, 300.0)  # it begins anew
    assert (stage.passed(301.0), stage.left(301.0)) == (1.0, None)


def test_what_was_done_before_says_nothing_of_speed() -> None:
    stage = Stage("fit", total=10, first=6, done=6, began=0.0, at=0.0)
    stage.now(7, 10, 5.0)
    assert stage.left(5.0) == 15.0


@pytest.mark.parametrize(("seconds", "text"), [(None, "-:--"), (0.4, "0:00"), (61, "1:01"), (3661, "1:01:01")])
def test_durations_are_shown_as_minutes_and_seconds(seconds: float | None, text: str) -> None:
    assert clock(seconds) == text


def test_a_pipe_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = 1000.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with bars() as watch:
        watch("start", 0, 1)
        for done in range(61):
            watch("fit", done, 60)
            now += 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "fit 0 of 60, 0:00 passed, -:-- left"
    assert lines[1] == "fit 10 of 60, 0:10 passed, 0:50 left"
    assert lines[-1] == "fit 60 of 60, 1:00 passed, 0:00 left"
    assert len(lines) == 7


SLOW = """
import time
from unsee.progress import bars
with bars() as watch:
    watch("read", 0, 2)
    time.sleep(2.5)
    watch("read", 2, 2)
    time.sleep(2.5)
"""


def test_a_terminal_shows_something_every_two_seconds() -> None:
    """Also while one unit takes longer, and between two stages."""
    outer, inner = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", SLOW], stderr=inner, env={**os.environ, "TERM": "xterm"})
    os.close(inner)
    times, text = [], b""
    while select.select([outer], [], [], 20)[0]:
        try:
            text += os.read(outer, 4096)
        except OSError:  # the other end is closed
            break
        times.append(time.monotonic())
    os.close(outer)
    assert process.wait() == 0
    assert b"0:02 passed, -:-- left" in text
    assert b"0:04 passed, 0:00 left" in text
    assert max(b - a for a, b in pairwise(times)) < 2
