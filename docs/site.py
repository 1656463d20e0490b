"""Prepare the pages of the documentation site, from docs/, README.md and docstrings: python docs/site.py

Pages are written once: the site's are those of the repository, with links that lead to the site's own pages. A method's
page is the docstring of its file, with its formulas. A link that leads nowhere ends it.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "build" / "pages"
SOURCE = ROOT / "src" / "unsee"
API = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
METHODS = ("balance", "hybrid", "esd", "uce", "oce", "speed", "lora", "gem", "stereo", "robust")
MOVED = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "src/unsee/mini/README.md": "miniature.md",
    "docs/tutorial.ipynb": "tutorial.md",
    "src/unsee/guards.py": "method/guards.md",
    **{f"src/unsee/methods/{name}.py": f"method/{name}.md" for name in METHODS},
}
"""Where a file of the repository is on the site; all others of docs/ keep their names."""
COPIED = (".md", ".png", ".svg", ".webp", ".css", ".csv")
WIDE = 80
"""Letters of code that fit into the site's column, at the width of a laptop."""
WORDY = {10: "some", 16: "long", 48: "longer"}
"""A column of a table is at least so wide, as site.css says, where a cell has so many letters."""
TIED = re.compile(
    r"(?<=\d) (?=(?:to|of) -?\d|%|GB|MB|dB)|(?<=\d (?:to|of)) (?=-?\d)"
    r"| (?=\+\d)|(?<=[<>]=) (?=-?\d)|(?:(?<=\bn)|(?<=confirmed)) (?=\d)"
)
"""Spaces within a number: of an interval, of its unit, of its n."""
WHOLE = re.compile(r"(?<=\de)-(?=\d)")
"""A hyphen after which no line may end: that of 1e-5."""
LINK = re.compile(r"(!?\[(?:[^\[\]]|\[[^\]]*\])*\])\(([^)\s#]*)(#[^)\s]*)?\)")


def main() -> None:
    """Write build/pages, and exit with 1 and a line for each link that leads nowhere."""
    shutil.rmtree(PAGES, ignore_errors=True)
    files = [path for path in (ROOT / "docs").rglob("*") if path.suffix in COPIED]
    for path in (*files, *(ROOT / name for name in MOVED)):
        target = PAGES / place(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix == ".md":
            target.write_text(linked(page(path), path), encoding="utf-8")
        else:
            shutil.copyfile(path, target)
    if broken := dead():
        sys.exit("\n".join(broken))


def place(path: Path) -> str:
    """Where a file of the repository is on the site, below its root."""
    name = path.resolve().relative_to(ROOT).as_posix()
    return MOVED.get(name, name.removeprefix("docs/"))


def page(path: Path) -> str:
    """A file as a page."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        return notebook(text)
    return method(path, text) if path.suffix == ".py" else text


def notebook(text: str) -> str:
    """The cells of a notebook."""
    parts = []
    for cell in json.loads(text)["cells"]:
        code = cell["cell_type"] == "code"
        said = "".join(cell["source"])
        parts.append(f"```python\n{said}\n```" if code else said)
    return "\n\n".join(parts) + "\n"


def method(path: Path, text: str) -> str:
    """The docstring of a module, which has formulas, and where the settings of its classes are."""
    tree = ast.parse(text)
    title, _, rest = (ast.get_docstring(tree) or "").partition("\n\n")
    rest = rest.replace("docs/LOG.md", f"[docs/LOG.md]({os.path.relpath(ROOT / 'docs' / 'LOG.md', path.parent)})")
    name, colon, lead = " ".join(title.split()).partition(": ")
    name, lead = (name, lead[:1].upper() + lead[1:]) if colon else (path.stem.capitalize(), name)
    parts = [f"# {name}", lead, rest.rstrip()]
    named = [node.name for node in tree.body if isinstance(node, ast.ClassDef) and ast.get_docstring(node)]
    there = os.path.relpath(ROOT / "docs" / "api.md", path.parent)
    links = ", ".join(f"[{name}]({there}#{name.lower()})" for name in named if f"## {name}\n" in API)
    parts.append(f"The file is `{path.relative_to(ROOT)}`. Settings, with their defaults: {links}.")
    return "\n\n".join(part for part in parts if part) + "\n"


def whole(text: str) -> str:
    """A page without sections takes the place of the table of contents too."""
    return text if re.search(r"(?m)^## ", text) or text.startswith("---") else f"---\nhide: [toc]\n---\n\n{text}"


def above(code: str) -> str:
    """A block of code with its comments above their lines, where a line is too long."""
    if not re.match("```(sh|python|yaml)\n", code) or max(map(len, code.splitlines())) <= WIDE:
        return code
    return re.sub(r"(?m)^( *)([^#\s][^#\n]*?) +# (.+)$", r"\1# \3\n\1\2", code)


def sized(text: str) -> str:
    """With tables in which numbers stay whole and columns of words are wide enough to be read."""
    return re.sub(r"(?m)^\|.*\n\|[-:| ]+\n(?:\|.*\n?)*", lambda found: _table(found[0]), text)


def _table(text: str) -> str:
    """One table of Markdown."""
    parts = re.split(r"(`[^`\n]*`)", text)
    text = "".join(
        part if part.startswith("`") else WHOLE.sub("\\g<0>\u2060", TIED.sub("\xa0", part)) for part in parts
    )
    head, rule, *lines = text.splitlines()
    rows = [re.split(r"(?<!\\)\|", line.strip().strip("|")) for line in (head, *lines)]
    if len(rows[0]) > 2:
        for k, name in enumerate(rows[0]):
            plain = (re.sub(r"!?\]\([^)]*\)|<[^>]*>|[^a-zA-Z]", "", row[k]) for row in rows[1:] if len(row) > k)
            letters = max(map(len, plain), default=0)
            if wide := [kind for least, kind in WORDY.items() if letters >= least]:
                rows[0][k] = f' <span class="{wide[-1]}">{name.strip()}</span> '
    return "\n".join([f"|{'|'.join(rows[0])}|", rule, *lines]) + "\n"


def spaced(text: str) -> str:
    """With an empty line before and after each list and before each indented block, as the site's markdown needs."""
    text = re.sub(r"(?m)^(?![ \-*#|>])(.+)\n(?=(?:- |\* |\d+\. )\S)", r"\1\n\n", text)
    text = re.sub(r"(?m)^((?:- |\* |\d+\. |  ).*)\n(?=[^\s\-*\d|#<])", r"\1\n\n", text)
    return re.sub(r"(?m)^(?! )(?!- )(.+)\n(?=    \S)", r"\1\n\n", text)


def linked(text: str, path: Path) -> str:
    """A page with the links of its file turned into those of the site; code stays as it is."""
    depth = place(path).count("/")

    def turned(match: re.Match[str]) -> str:
        shown, target, anchor = match[1], match[2], match[3] or ""
        if not target or ":" in target:
            return match[0]
        there = (path.parent / target).resolve()
        if not there.is_relative_to(ROOT) or not there.exists():
            return match[0]  # which `dead` finds
        name = there.relative_to(ROOT).as_posix()
        if name not in MOVED and not name.startswith("docs/"):
            return shown.strip("[]")  # code that has no page: its name is enough
        return f"{shown}({'../' * depth}{place(there)}{anchor})"

    parts = re.split(r"(^```.*?^```)", text, flags=re.M | re.S)
    parts = [re.sub(r"\A(```\w+) .*", r"\1", part) for part in parts]  # "python guard" names an example, for tests
    made = (above(part) if part.startswith("```") else sized(LINK.sub(turned, spaced(part))) for part in parts)
    return whole("".join(made))


def dead() -> list[str]:
    """Links of the site's pages that lead to no page, picture or heading; and pages that the menu lacks."""
    found = []
    for path in sorted(PAGES.rglob("*.md")):
        text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
        for _, target, anchor in LINK.findall(text):
            there = path.parent / target if target else path
            if ":" in target:
                continue
            if not there.exists():
                found.append(f"{path.relative_to(PAGES)}: {target} is not there")
            elif anchor and there.suffix == ".md" and anchor[1:] not in anchors(there):
                found.append(f"{path.relative_to(PAGES)}: {target} has no {anchor}")
    menu = set(re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.M))
    pages = {path.relative_to(PAGES).as_posix() for path in PAGES.rglob("*.md")}
    return found + [f"{name}: not in the menu of mkdocs.yml, or not there" for name in sorted(menu ^ pages)]


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them, and the site."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    heads = re.findall(r"^#+ (.*)$", text, re.M)
    slugs = [re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads]
    return set(slugs)


if __name__ == "__main__":
    main()
