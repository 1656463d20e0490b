"""The table of all benchmarks; what they measure is run by hand."""

import sys

import pytest

from benchmarks import __main__ as table


def test_the_table_has_medians_of_short_benchmarks_and_one_run_of_long_ones(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    values = iter([2.0, 9.0, 3.0])
    monkeypatch.setitem(table.BENCHMARKS, "rendering", (lambda: {"pictures side by side": next(values)}, False))
    monkeypatch.setitem(table.BENCHMARKS, "speed", (lambda: {"the paper's loop": 120.4}, True))
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--only", "rendering", "speed"])
    table.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == [
        "| church gone by the default: times sooner than the paper's loop ends | >= 100 | 120 | 1 |",
        "| pictures drawn side by side, times faster than one by one | >= 2 | 3 | 3 |",
    ]
