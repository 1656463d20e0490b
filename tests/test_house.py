"""Rules of the house that a machine can check."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "unsee"

LAYERS = [
    {"errors", "progress", "spelling", "versions"},
    {"io", "concepts"},
    {"models"},
    {"denoising"},
    {"fit", "edits"},
    {"methods", "guards", "evaluate", "export"},
    {"report"},
    {"runs"},
    {"cli", "__main__"},
]
"""Lowest first. A module may import its own layer and lower ones; in the layer of methods, only its own part."""


def imports(path: Path) -> set[str]:
    """The modules of unsee that a file imports anywhere, by their first name below the package."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "unsee":
            parts = node.module.split(".")[1:]
            names |= {parts[0]} if parts else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("unsee.")}
    return names


FILES = sorted(path for path in SOURCE.rglob("*.py") if path.name != "__init__.py" or path.parent != SOURCE)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_flow_one_way(path: Path) -> None:
    rank = {name: k for k, layer in enumerate(LAYERS) for name in layer}
    own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    assert own in rank, f"say in which layer {own} belongs"
    for name in imports(path):
        assert name in rank, f"{path.name} imports unsee.{name}, which has no layer"
        assert rank[name] <= rank[own], f"{own} must not import {name}"
        if rank[name] == rank[own] == rank["methods"]:
            assert name == own, f"{own} must not know {name}"


def test_methods_name_no_model_family_and_evaluation_no_method() -> None:
    for path in (SOURCE / "methods").rglob("*.py"):
        assert not {"unet", "transformer", "flux", "sdxl"} & set(path.read_text().lower().replace('"', " ").split()), (
            path
        )
    for path in (SOURCE / "evaluate").rglob("*.py"):
        text = path.read_text().lower()
        assert "esd" not in text, path
        assert "mini" not in text.replace("minimum", "").replace("minimise", ""), path


def loaded_by(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after running some code."""
    run = [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"]
    return set(subprocess.run(run, capture_output=True, text=True, check=True).stdout.splitlines()[-1].split())


def test_importing_unsee_costs_no_torch() -> None:
    assert not {"torch", "diffusers", "transformers", "pydantic", "numpy"} & loaded_by("import unsee; dir(unsee)")


@pytest.mark.parametrize("command", ["erase", "export", "verify"])
def test_help_costs_nothing_heavy(command: str) -> None:
    code = f"import sys; from unsee.cli.main import app; app([{command!r}, '--help'], standalone_mode=False)"
    assert not {"torch", "diffusers", "transformers", "numpy", "rich"} & loaded_by(code)


def test_showing_an_edit_costs_no_torch(edit: object, tmp_path: Path) -> None:
    path = edit.save(tmp_path / "edit.safetensors")  # type: ignore[attr-defined]
    code = f"from unsee.cli.main import app; app(['show', {str(path)!r}], standalone_mode=False)"
    assert not {"torch", "diffusers", "transformers"} & loaded_by(code)


def test_every_room_exists() -> None:
    rooms = {path.relative_to(SOURCE).parts[0].removesuffix(".py") for path in FILES}
    assert {name for layer in LAYERS for name in layer} == rooms
