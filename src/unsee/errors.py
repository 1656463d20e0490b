"""Errors of one line: what was wrong, what is allowed, what is nearest."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class InputError(ValueError):
    """The caller's input cannot be used. The message is one line; the command line prints it and exits with 2."""


class Ended(Exception):
    """A command ended before all was done. The message is one line that says what to do; `code` is its exit code."""

    def __init__(self, message: str, code: int = 1):
        super().__init__(message)
        self.code = code


class Unsupported(InputError):
    """A pipeline does what nothing here can work with. The cause, if there is one, is what it raised itself."""


def unknown(kind: str, name: str, allowed: Iterable[str]) -> InputError:
    """The error for a name outside a fixed set: the name, the nearest allowed one, and all of them."""
    allowed, name = sorted(allowed), _cut(name)
    lower = {word.lower(): word for word in allowed}
    near = get_close_matches(name.lower(), lower, n=1) or [word for word in lower if name and name.lower() in word]
    hint = f"did you mean {' or '.join(repr(lower[word]) for word in near)}? " if near else ""
    return InputError(f"unknown {kind} {name!r}: {hint}known: {', '.join(allowed)}")


def invalid(error: ValidationError, allowed: Iterable[str] = ()) -> InputError:
    """pydantic's findings as one line; a field that does not exist gets the nearest that does."""
    found = error.errors()[0]
    field = ".".join(str(part) for part in found["loc"])
    if found["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return unknown("setting", field, allowed)
    if found["type"] == "value_error":  # one of ours, which says all
        return InputError(f"{field}: {found['ctx']['error']}")
    return InputError(f"{_cut(field)}: {found['msg'][0].lower()}{found['msg'][1:]}, got {_short(found['input'])}")


def _short(value: object) -> str:
    """A value as text of a line's length. A number may have more digits than Python prints."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} that cannot be shown"
    return _cut(text)


def _cut(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}..."
