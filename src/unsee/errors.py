"""Errors of one line: what was wrong, what is allowed, what is nearest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from difflib import get_close_matches
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from pydantic import ValidationError

T = TypeVar("T")


class InputError(ValueError):
    """The caller's input cannot be used. The message is one line: what was wrong, what is allowed, what is nearest.

    Names of arguments stand in backquotes, `rank`; the command line writes its own options in their place.

        >>> try: unsee.ESD(eta=-1)
        ... except unsee.InputError as error: print(error)
        eta: input should be greater than or equal to 0, got -1
    """


class Ended(Exception):
    """A command ended before all was done. The message is one line that says what to do; `code` is its exit code."""

    def __init__(self, message: str, code: int = 1):
        super().__init__(message)
        self.code = code


class Unsupported(InputError):
    """A pipeline does what nothing here can work with. The cause, if there is one, is what it raised itself."""


class Diverged(InputError):
    """The loss of a fit is no longer finite, or far more than it was. The message says what to change."""


def unknown(kind: str, name: str, allowed: Iterable[str]) -> InputError:
    """The error for a name outside a fixed set: the name, the nearest allowed one, and all of them."""
    allowed, name = sorted({*allowed}), _cut(name)
    lower = {word.lower(): word for word in allowed}
    near = get_close_matches(name.lower(), lower, n=1) or [word for word in lower if name and name.lower() in word]
    hint = f"did you mean {' or '.join(repr(lower[word]) for word in near)}? " if near else ""
    return InputError(f"unknown {kind} {name!r}: {hint}known: {', '.join(allowed)}")


def invalid(error: ValidationError, allowed: Iterable[str] = ()) -> InputError:
    """pydantic's findings as one line; a field that does not exist gets the nearest that does."""
    found, allowed = error.errors()[0], list(allowed)
    place = [
        allowed[part] if k == 0 and isinstance(part, int) and allowed else part for k, part in enumerate(found["loc"])
    ]
    field = ".".join(map(str, place))
    if found["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return unknown("setting", field, allowed)
    if found["type"] == "value_error":  # one of ours, which says all
        return InputError(f"{field}: {found['ctx']['error']}")
    return InputError(f"{_cut(field)}: {found['msg'][0].lower()}{found['msg'][1:]}, got {_short(found['input'])}")


def one_line(kind: type[T]) -> type[T]:
    """A pydantic dataclass that raises InputError, in one line, where it would raise ValidationError."""
    from pydantic import ValidationError

    names = [one.name for one in fields(kind)]  # type: ignore[arg-type]
    make = kind.__init__

    @wraps(make)
    def checked(self: Any, *values: Any, **settings: Any) -> None:
        try:
            make(self, *values, **settings)
        except ValidationError as error:
            raise invalid(error, names) from error

    kind.__init__ = checked  # type: ignore[method-assign]
    return kind


def _short(value: object) -> str:
    """A value as text of a line's length. A number may have more digits than Python prints."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} that cannot be shown"
    return _cut(text)


def _cut(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}..."
