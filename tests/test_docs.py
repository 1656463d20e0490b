"""The pages of the site: links lead somewhere, commands exist, Python runs, the tutorial is a test."""

import importlib.util
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from unsee import methods
from unsee.cli.main import UsageError, app

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
ELSEWHERE = ("LOG.md", "api.md")
"""Pages with commands of old versions, or whose examples another test runs."""
PAGES = sorted({path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")} - set(ELSEWHERE))


def module(name: str) -> Any:
    """A script of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec
    assert spec.loader
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def commands(page: str) -> list[str]:
    text = (DOCS / page).read_text()
    lines = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.S)).replace("\\\n", " ").splitlines()
    inline = re.findall(r"`(unsee [a-z][^`]*)`", text)
    plain = [line.split(" # ")[0].split("  #")[0].strip() for line in lines]
    return [line for line in [*plain, *inline] if line.startswith("unsee ") and "..." not in line]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_exists(page: str) -> None:
    every: Any = get_command(app)
    for line in commands(page):
        words, command = shlex.split(line), every
        while words and (inner := getattr(command, "commands", {}).get(words[1] if len(words) > 1 else "")):
            command, words = inner, words[1:]
        if len(words) > 1 and not re.fullmatch("--?[a-z-]+", words[-1]):  # else it only names the command, or an option
            refused = None
            try:
                command.make_context(words[0], words[1:])
            except UsageError as error:
                refused = error.format_message()
            # What is named in a sentence may leave out what it needs.
            assert not refused or ("Missing" in refused and f"`{line}`" in (DOCS / page).read_text()), line


@pytest.mark.usefixtures("mini_is_tiny")
@pytest.mark.parametrize("page", [*PAGES, "tutorial.ipynb"])
def test_the_python_on_every_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (DOCS / page).read_text()
    if page.endswith(".ipynb"):
        cells = json.loads(text)["cells"]
        assert not any(cell.get("outputs") for cell in cells), "outputs are not kept"
        codes = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        assert codes
    else:
        codes = re.findall(r"```python\n(.*?)```", text, re.S)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for code in codes:
        exec(code, names)


def test_links_lead_somewhere_and_every_page_is_in_the_menu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = module("site")
    monkeypatch.setattr(site, "PAGES", tmp_path / "pages")
    site.main()
    assert set(site.METHODS) == set(methods.names())
    page = (tmp_path / "pages" / "method" / "esd.md").read_text()
    assert "e(x_t, t) - eta [e(x_t, c, t) - e(x_t, t)]" in page
    assert "(../" in (tmp_path / "pages" / "howto" / "red-team.md").read_text()
    assert "](start.md)" in (tmp_path / "pages" / "index.md").read_text()


def test_every_page_begins_with_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader who lands on a page learns what it is for before the first command or table."""
    site = module("site")
    monkeypatch.setattr(site, "PAGES", tmp_path / "pages")
    site.main()
    for path in (tmp_path / "pages").rglob("*.md"):
        front = re.sub(r"\A---\n.*?\n---\n", "", path.read_text(), flags=re.S)
        title, first = front.strip().split("\n\n")[:2]
        assert title.startswith("# "), path.name
        assert re.match(r"[\w`\[*>]", first), path.name
        assert first.rstrip("*").endswith((".", ":", "?")), path.name


def test_a_method_has_a_short_title_and_all_of_its_formulas() -> None:
    site = module("site")
    path = DOCS.parent / "src" / "unsee" / "methods" / "one.py"
    text = '"""One: ends where it\nbegins.\n\n    1. solve\n    2. fit\n\nSee docs/LOG.md.\n"""'
    title, lead, formula, rest = site.method(path, text).split("\n\n")[:4]
    assert (title, lead, formula) == ("# One", "Ends where it begins.", "    1. solve\n    2. fit")
    assert rest == "See [docs/LOG.md](../../../docs/LOG.md)."


def test_code_and_tables_fit_into_a_column() -> None:
    site = module("site")
    short, long = "```sh\nunsee app  # in a browser\n```", "```yaml\n  a: 1" + " " * 70 + "# what it is\nb: 2\n```"
    assert site.above(short) == short
    assert site.above(long) == "```yaml\n  # what it is\n  a: 1\nb: 2\n```"
    table = "| a | b | c |\n|---|---|---|\n| 1.0 (0.5 to 2), n 3 | `1 to 2` | a prompt of many words |\n"
    head, _, row = site.sized(f"Words 1 to 2.\n\n{table}").splitlines()[2:]
    assert head == '| a | b | <span class="long">c</span> |'
    assert row == "| 1.0 (0.5\xa0to\xa02), n\xa03 | `1 to 2` | a prompt of many words |"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[one](nowhere.md)", "nowhere.md is not there"),
        ("[one](faq.md#nothing)", "faq.md has no #nothing"),
        ("![one](nothing.png)", "nothing.png is not there"),
    ],
)
def test_a_dead_link_is_found(text: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = module("site")
    monkeypatch.setattr(site, "PAGES", tmp_path)
    (tmp_path / "faq.md").write_text(f"# Questions\n\n{text}\n")
    assert f"faq.md: {what}" in site.dead()
    assert "start.md: not in the menu of mkdocs.yml, or not there" in site.dead()


def test_the_glossary_has_the_methods_and_selections() -> None:
    from unsee.models.weights import SELECTIONS

    text = (DOCS / "glossary.md").read_text()
    assert all(f"`{name}`" in text for name in (*methods.names(), *SELECTIONS))
