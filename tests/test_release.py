"""What is released: a wheel and an sdist, built, and installed into a clean environment."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import yaml

import unsee

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MOST = 40e6
"""Bytes of a wheel at most; the miniature takes most of it."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel and the sdist of this checkout, by suffix; the wheel is built from the sdist, as a release is."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-d", folder]
    subprocess.run([*build, "-t", "sdist"], cwd=ROOT, check=True, capture_output=True)
    sdist = next(folder.glob("*.tar.gz"))
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "source", filter="data")
    (source,) = (folder / "source").iterdir()
    subprocess.run([*build, "-t", "wheel"], cwd=source, check=True, capture_output=True)
    return {"sdist": sdist, "wheel": next(folder.glob("*.whl"))}


def test_what_is_built_is_whole_and_small(built: dict[str, Path]) -> None:
    for path in built.values():
        assert f"-{unsee.__version__}" in path.name, "the version is that of unsee/__init__.py"
        assert path.stat().st_size < MOST
    with ZipFile(built["wheel"]) as wheel:
        names = set(wheel.namelist())
    tracked = subprocess.run(["git", "ls-files", "src"], cwd=ROOT, capture_output=True, text=True, check=True)
    missing = {name.removeprefix("src/") for name in tracked.stdout.split()} - names
    assert not missing, "files of the package that the wheel lacks"
    assert "unsee/py.typed" in names
    assert not {name.split("/")[0] for name in names} - {"unsee", f"unsee-{unsee.__version__}.dist-info"}


def test_the_wheel_runs_in_a_clean_environment(built: dict[str, Path], tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    install = ["install", "--quiet", "--no-deps", "--no-index", built["wheel"]]
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run([sys.executable, "-m", "pip", "--python", python, *install], env=clean, check=True)
    place = next((tmp_path / "env").rglob("site-packages"))
    others = [path for path in sys.path if path.endswith("site-packages")]
    (place / "others.pth").write_text("\n".join(others))  # what it depends on, behind it

    def said(*words: str | Path) -> str:
        done = subprocess.run(words, cwd=tmp_path, env=clean, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    version = f"unsee {unsee.__version__}\n"
    assert said(python.with_name("unsee"), "--version") == said(python, "-m", "unsee", "--version") == version
    assert Path(said(python, "-c", "import unsee; print(unsee.__file__)").strip()).is_relative_to(tmp_path)
    listed = said(python.with_name("unsee"), "erase", "--help")
    assert all(entry.name in listed for entry in entry_points(group="unsee.methods"))
    clean["_UNSEE_COMPLETE"] = "source_zsh"
    assert said(python.with_name("unsee")).lstrip().startswith("#compdef unsee")


def test_one_version_and_a_changelog_that_has_it() -> None:
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "src/unsee/__init__.py"
    heads = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert heads[0] == "Unreleased"
    assert unsee.__version__ in heads


def test_pipx_and_uvx_find_the_command_by_the_name_of_the_package() -> None:
    assert PROJECT["project"]["scripts"] == {PROJECT["project"]["name"]: "unsee.cli.main:main"}


def test_every_test_runs_before_a_merge_and_the_wheel_runs_before_it_is_published() -> None:
    """What `make test` skips for want of a package or a browser has a target of its own, and CI runs each."""
    steps = workflow("tests")["jobs"]["more"]["steps"]
    made = {word for step in steps for word in step.get("run", "").removeprefix("make ").split()}
    assert made == {"browser", "app", "nsfw", "ray"}
    release = workflow("release")["jobs"]
    assert set(release["publish"]["needs"]) == {"build", "wheel"}
    commands = release["wheel"]["strategy"]["matrix"]["command"]
    assert [line.split()[0] for line in commands] == ["uvx", "pipx"]
    assert all(line.endswith(f"dist/*.whl {PROJECT['project']['name']} --version") for line in commands)


def workflow(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text())
    assert all(one["runs-on"] == "ubuntu-latest" for one in found["jobs"].values())
    return found


@pytest.mark.parametrize("file", [*(ROOT / ".github" / "workflows").glob("*.yml"), ROOT / "Dockerfile"], ids=str)
def test_what_builds_elsewhere_names_what_is_here(file: Path) -> None:
    text, makefile = file.read_text(), (ROOT / "Makefile").read_text()
    for line in re.findall(r"run: make (.*)", text):
        assert all(re.search(rf"^{word}:", makefile, re.M) for word in line.split()), line
    for line in re.findall(r"^COPY (.*) \S+$", text, re.M):
        assert all((ROOT / word).exists() for word in line.split()), line
    assert re.search(r"make|COPY", text)
