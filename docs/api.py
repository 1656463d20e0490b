"""Write docs/api.md, the reference of the public names of unsee, from their docstrings: python docs/api.py"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import unsee

PAGE = Path(__file__).with_name("api.md")
HEAD = """# Python API

Made from the docstrings by `python docs/api.py`. In the examples `pipe` is `unsee.load("mini")`, and
`edit` is an edit of it. An argument `pipe` takes any text-to-image pipeline of diffusers, or an
`unsee.Model`.
"""
FIELD = re.compile(r"(\w+(?:, \w+)*)  +(\S.*)")


def reference() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(section(name, getattr(unsee, name)) for name in unsee.__all__)])


def section(name: str, one: Any) -> str:
    """A public name: its signature, what its docstring says, and its methods."""
    parts = [f"## {name}", signature(f"unsee.{name}", one), *paragraphs(one), inherited(one)]
    for key, member in vars(one).items() if isinstance(one, type) else ():
        member = getattr(member, "__func__", member)
        if not key.startswith("_") and inspect.isfunction(member) and inspect.getdoc(member):
            parts += [f"### {name}.{key}", signature(f"{name}.{key}", member), *paragraphs(member)]
    return "\n\n".join(part for part in parts if part) + "\n"


def signature(name: str, one: Any) -> str:
    """The call with the names of arguments, and their defaults as far as these are short."""
    if isinstance(one, type) and issubclass(one, Exception):
        return ""
    words: list[str] = []
    for argument in inspect.signature(one).parameters.values():
        if argument.name in ("self", "cls"):
            continue
        if argument.kind is argument.KEYWORD_ONLY and not any(word.startswith("*") for word in words):
            words.append("*")
        star = {argument.VAR_POSITIONAL: "*", argument.VAR_KEYWORD: "**"}.get(argument.kind, "")
        words.append(f"{star}{argument.name}{default(argument.default)}")
    line = f"{name}({', '.join(words)})"
    long = f"{name}(\n    " + ",\n    ".join(words) + ",\n)"
    return f"```python\n{line if len(line) <= 80 else long}\n```"


def default(value: Any) -> str:
    if value is inspect.Parameter.empty:
        return ""
    if callable(value):
        return f"={value.__name__}"
    text = repr(value)
    return f"={text}" if len(text) <= 40 and "object at" not in text and "<" not in text else "=..."


def paragraphs(one: Any) -> list[str]:
    """A docstring as Markdown: lists of fields as lists, formulas and examples as code."""
    found = []
    for part in (inspect.getdoc(one) or "").split("\n\n"):
        lines = part.splitlines()
        example = lines[:1] and lines[0].lstrip().startswith(">>>")
        if example or all(line.startswith("    ") for line in lines):
            kind = "python" if example else "text"
            found.append("\n".join([f"```{kind}", *(line.removeprefix("    ") for line in lines), "```"]))
        elif FIELD.match(lines[0]):
            found.append(fields(lines))
        else:
            found.append(part)
    return found


def inherited(one: Any) -> str:
    """The settings that a class shares with others, as the docstrings of the classes that it builds on have them."""
    known = set(re.findall(r"^- `(.*?)`:", "\n".join(paragraphs(one)), re.M))
    found: list[str] = []
    for base in one.__mro__[1:] if isinstance(one, type) else ():
        if base.__module__.startswith("unsee."):
            items = re.findall(r"^- `.*?`: .*", "\n".join(paragraphs(base)), re.M)
            found += [item for item in items if item.split("`")[1] not in known]
            known |= {item.split("`")[1] for item in items}
    return "\n".join(["Settings that other methods have too:\n", *found]) if found else ""


def fields(lines: list[str]) -> str:
    """Lines "name  what it is", with what goes on below, as a list."""
    items: list[str] = []
    for line in lines:
        if match := FIELD.fullmatch(line):
            items.append(f"- `{match[1]}`: {match[2]}")
        elif line.startswith("  "):
            items[-1] += f" {line.strip()}"
        else:
            items.append(f"\n{line}")
    return "\n".join(items)


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
