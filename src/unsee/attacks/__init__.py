"""Attacks by name. An attack searches for what makes an edited model draw the concept again. One attack a file.

An attack is called with an AttackContext and yields `Found`: prompts, conditioning, latents or weights to draw with.
What it yields is drawn at once, before it goes on: an effort curve then needs no copy of anything. It never sees the
detector that counts its pictures, and this room cannot import one.

An attack is a file of its own and one row under `unsee.attacks` in a package's entry points. It raises InputError, in
one line, on a pipeline that it cannot work with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Literal, get_args

from unsee.attacks.context import AttackContext, Found
from unsee.errors import unknown

Axis = Literal["name", "discrete text", "continuous text", "pictures", "weights"]
"""What an attacker changes. Results of different axes are never averaged."""
Need = Literal["name", "text encoder", "weights", "pictures", "base"]
"""What an attacker must have: the concept's name, the text encoder, the attacked weights, pictures, or the base."""
AXES: tuple[Axis, ...] = get_args(Axis)


@dataclass(frozen=True)
class Attack:
    """One attack.

    about   what it does and where it was published, in a sentence for the page
    needs   what an attacker must have
    search  the attack itself
    leak    whether it fails on an undefended model, so that any success is a trace of the edit
    taught  whether it can be aimed at pictures of a thing that no model knows, which is the control "taught"
    rows    how many `Found` it yields, at a small and at a full budget
    searches  how many searches it makes at each, which may take the budget's passes each
    """

    name: str
    axis: Axis
    needs: frozenset[Need]
    about: str
    search: Callable[[AttackContext], Iterator[Found]]
    taught: bool = False
    leak: bool = False
    rows: tuple[int, int] = (1, 1)
    searches: tuple[int, int] = (0, 0)

    def __call__(self, context: AttackContext) -> Iterator[Found]:
        return self.search(context)


def names() -> list[str]:
    """The attacks that are installed."""
    return sorted(entry.name for entry in entry_points(group="unsee.attacks"))


def find(name: str) -> Attack:
    """An attack by name. Raises InputError for an unknown one."""
    for entry in entry_points(group="unsee.attacks"):
        if entry.name == name:
            attack: Attack = entry.load()
            return attack
    raise unknown("attack", name, names())
