"""What the README shows works as it stands there."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Run
from typer.main import get_command

from benchmarks import headline, redteam
from benchmarks.ablation import page, read_cells
from benchmarks.evidence.record import read
from unsee import attacks
from unsee.cli.main import app
from unsee.evaluate.suites import summary
from unsee.runs.config import RunConfig

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


@pytest.mark.usefixtures("mini_is_tiny")
def test_the_three_lines_of_python_run() -> None:
    (code,) = blocks("python")
    assert len([line for line in code.splitlines() if line.strip()]) == 1 + 3
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["edit"].card.concepts[0].erase == "church"
    names["edit"].remove(names["pipe"])


LINES = [line.split("#")[0].strip() for block in blocks("sh") for line in block.splitlines() if line.strip()]


@pytest.mark.parametrize("line", LINES)
def test_every_command_exists(line: str) -> None:
    program, *words = shlex.split(line)
    if program == "make":
        assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(), re.M)
    elif program == ".":  # into the environment that `make demo` makes
        assert words == [".venv/bin/activate"]
    else:
        assert program == "unsee"
        command = get_command(app).commands[words[0]]  # type: ignore[attr-defined]
        command.make_context(words[0], words[1:])


def measured_away(text: str) -> str:
    """A dry run without what differs from machine to machine: seconds, free memory, and where lines break."""
    text = re.sub(r"(?m)^(.*\d) +[\d,]+\.\d$", r"\1 SECONDS", text)
    text = re.sub(r"about [\d.]+ (s|min|h),", "about SO LONG,", text)
    text = re.sub(r"one pass of [\d.e+]+ ms", "one pass of SO LONG", text)
    text = re.sub(r"[\d.]+ GB", "MEMORY", text)
    return " ".join(text.split())


@pytest.fixture
def as_shipped(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What conftest makes smaller for all tests is as it ships: the default model, and the pictures of it."""
    with monkeypatch.context() as patch:
        patch.delenv("COLUMNS", raising=False)
        patch.setattr(summary, "PART", 16)
        patch.setattr(RunConfig.model_fields["model"], "default", "mini")
        RunConfig.model_rebuild(force=True)
        yield
    RunConfig.model_rebuild(force=True)


@pytest.mark.usefixtures("as_shipped")
def test_the_dry_run_is_what_the_command_prints(run: Run, tmp_path: Path) -> None:
    (shown,) = blocks("text")
    code, out, err = run("erase", "church", "--method", "hybrid", "--dry-run")
    assert code == 0, err
    assert "14,716" in shown
    assert measured_away(shown) in measured_away(out)
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


def test_the_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", README):
        assert (ROOT / target).exists(), target


def test_figures_are_those_of_the_pages_that_commands_write() -> None:
    ablation, performance = ((ROOT / "docs" / f"{name}.md").read_text() for name in ("ablation", "performance"))
    table = [line for line in README.splitlines() if line.startswith("| `")]
    assert table
    assert all(line in ablation for line in table)
    assert ablation == page(read_cells()), "python -m benchmarks.ablation --draw"
    castles = {name: round(one.kept[0]) for name, one in headline.points(read_cells()).items()}
    left = re.search(r"Of 100 castles of `mini` (\d+) are left .* and (\d+) after UCE", README)
    assert left
    assert [int(left[1]), int(left[2])] == [castles["balance"], castles["uce"]]
    for figure in re.findall(r"[\d.]+ GB", README[README.index("By estimate") : README.index("## Responsible")]):
        assert figure in performance, figure
    assert f"{len(attacks.names())} attacks" in README
    strongest = headline.attacked(redteam.recorded())
    edits = [round(every) for name, (_, every) in strongest.items() if name in redteam.METHODS]
    assert f"attacks reach {min(edits)} to {max(edits)} % on every edit" in README


def test_the_python_that_is_needed_is_what_the_package_requires() -> None:
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    (version,) = re.findall(r"You need Python (3\.\d+) or later", README)
    assert requires == f">={version}"


def test_what_the_second_miniature_draws_of_a_church_is_measured() -> None:
    said = " ".join(README.split())
    before_after = r"draw a church in ([\d.]+) % of (\d+) pictures before, and in (.+?) % \((.+?) to (.+?)\)"
    (found,) = re.findall(rf'"([^"]+)" {before_after} after its default, `(\w+)`', said)
    description, before, n, *after, method = found
    docs = ROOT / "docs"
    cells = read((docs / "evidence-flow.csv").read_text())
    (cell,) = [one for one in cells if (one.task, one.by) == ("object", method)]
    assert f"\n| **object** | {method} |" in (docs / "evidence-flow.md").read_text(), "the task's default comes first"
    row = cell.row("wording", "removed")
    assert row
    assert row.base
    assert cell.row("wording", f"said/{description}")
    assert (before, int(n)) == (f"{100 * row.base.value:.1f}", row.score.n)
    assert after == [f"{100 * value:.1f}" for value in (row.score.value, row.score.low, row.score.high)]


def test_the_plot_is_that_of_its_tables() -> None:
    assert (ROOT / "docs" / "trade-off.svg").read_text() == headline.trade_off(), "python -m benchmarks.headline"
    drawn = headline.plot({"m": headline.Point((5, 1, 9), (75, 70, 80))}, {"m": (50.0, 100.0)})
    assert "<title>m leaves 5 % and keeps 75 %</title>" in drawn
    assert "<title>m: 50 % after the strongest attack that has a prompt only</title>" in drawn
