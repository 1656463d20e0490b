"""What the README shows works as it stands there."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from unsee.cli.main import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


@pytest.mark.usefixtures("mini_is_tiny")
def test_the_python_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("python")
    names: dict[str, Any] = {}
    exec(code, names)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["church.png", "church.safetensors"]
    assert names["edit"].card.concepts[0].erase == "church"


LINES = [line.split("#")[0].strip() for block in blocks("sh") for line in block.splitlines() if line.strip()]


@pytest.mark.parametrize("line", LINES)
def test_every_command_exists(line: str) -> None:
    program, *words = shlex.split(line)
    if program == "make":
        assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(), re.M)
    else:
        assert program == "unsee"
        command = get_command(app).commands[words[0]]  # type: ignore[attr-defined]
        command.make_context(words[0], words[1:])


def test_the_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_python_block_is_six_lines() -> None:
    (code,) = blocks("python")
    assert len([line for line in code.splitlines() if line.strip()]) == 6
