"""Rules of the house that a machine can check."""

import ast
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "unsee"
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()

LAYERS = [
    {"errors", "progress", "spelling", "versions"},
    {"io", "concepts"},
    {"models"},
    {"denoising"},
    {"fit", "edits"},
    {"methods", "attacks", "guards", "evaluate", "export"},
    {"report"},
    {"runs"},
    {"app"},
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


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_files_and_signatures_are_short(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 300
    if "cli" in path.parts:
        return  # a command has a parameter for each option
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            given = [one.arg for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            assert len([one for one in given if one not in ("self", "cls")]) <= 8, node.name


def private_names(tree: ast.Module) -> list[str]:
    """Names with a leading underscore that a file imports or reads from unsee, or patches there."""

    def private(name: str) -> bool:
        return any(part.startswith("_") and not part.startswith("__") for part in name.split("."))

    found, ours = list[str](), set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "unsee":
            ours |= {alias.asname or alias.name for alias in node.names}
            found += [name for alias in node.names if private(name := f"{node.module}.{alias.name}")]
        elif isinstance(node, ast.Import):
            ours |= {alias.asname or "unsee" for alias in node.names if alias.name.split(".")[0] == "unsee"}
    for node in ast.walk(tree):
        parts = ast.unparse(node).split(".") if isinstance(node, ast.Attribute) else []
        if parts and parts[0] in ours and private(ast.unparse(node)):
            found.append(".".join(parts))
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in ("setattr", "getattr"):
            place, name = [*map(ast.unparse, node.args[:2]), "", ""][:2]
            of_ours = place.strip("'").split(".")[0] in ours | {"unsee"}
            found += [f"{place}.{name}"] if of_ours and private(f"{place}.{name}".replace("'", "")) else []
    return found


@pytest.mark.parametrize("path", sorted(Path(__file__).parent.rglob("*.py")), ids=lambda path: path.name)
def test_no_test_takes_a_private_name_of_unsee(path: Path) -> None:
    assert not private_names(ast.parse(path.read_text()))


@pytest.mark.parametrize(
    "code",
    [
        "from unsee.versions import _source",
        "import unsee\nunsee._HOME",
        "from unsee import versions\nversions._source.cache_clear()",
        "from unsee.runs import sweep\npatch.setattr(sweep, '_stages', None)",
        "patch.setattr('unsee.progress._written', None)",
    ],
)
def test_a_private_name_is_found(code: str) -> None:
    assert private_names(ast.parse(code))


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


def test_every_ranked_package_exists() -> None:
    rooms = {path.relative_to(SOURCE).parts[0].removesuffix(".py") for path in FILES}
    assert {name for layer in LAYERS for name in layer} == rooms


def first_line(node: ast.Module | ast.FunctionDef) -> str:
    return (ast.get_docstring(node) or "").splitlines()[0]


def rooms() -> str:
    """The table of rooms, highest first: each with the first line of its docstring."""
    lines = ["| room | what it does |", "|---|---|"]
    for name in (name for layer in reversed(LAYERS) for name in sorted(layer)):
        path = SOURCE / name / "__init__.py" if (SOURCE / name).is_dir() else SOURCE / f"{name}.py"
        shown = f"{name}/" if (SOURCE / name).is_dir() else path.name
        lines.append(f"| `{shown}` | {first_line(ast.parse(path.read_text()))} |")
    return "\n".join(lines)


def fixtures() -> str:
    """The table of fixtures that tests share."""
    lines = ["| fixture | what it is |", "|---|---|"]
    for node in ast.parse((ROOT / "tests" / "conftest.py").read_text()).body:
        if isinstance(node, ast.FunctionDef) and any("fixture" in ast.unparse(one) for one in node.decorator_list):
            lines.append(f"| `{node.name}` | {first_line(node)} |")
    return "\n".join(lines)


@pytest.mark.parametrize("table", [rooms, fixtures])
def test_the_tables_are_those_of_the_code(table: Callable[[], str]) -> None:
    assert table() in CONTRIBUTING, f"CONTRIBUTING.md is stale; it must have:\n\n{table()}"


def test_the_log_has_an_index_of_all_its_entries() -> None:
    log = (ROOT / "docs" / "LOG.md").read_text()
    entries = re.findall(r"^### (\d{4}-\d\d-\d\d: .*)$", log, re.M)
    links = re.findall(r"\]\(#([^)]*)\)", log)
    assert sorted(links) == sorted(re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in entries)
    assert [one[:10] for one in entries] == sorted((one[:10] for one in entries), reverse=True)
