"""The command `show`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unsee.cli.terminal import (
    Debug,
    brief,
    plain,
)
from unsee.spelling import counted

if TYPE_CHECKING:
    from unsee.edits.card import Card
from unsee.cli.say import several


def show(
    file: Annotated[Path, typer.Argument(help="File of an edit.")],
    debug: Debug = False,
) -> None:
    """Show the card of an edit. It says what was erased, how, and from which model."""
    from safetensors import safe_open

    from unsee.edits.card import read_card

    card = read_card(file)
    with safe_open(file, framework="np") as tensors:
        names = list(tensors.keys())
        weights = {name.removesuffix(".up").removesuffix(".down") for name in names}
        size = sum(_product(tensors.get_slice(name).get_shape()) for name in names)
    lines = {
        "erased": several(card.concepts) or "-",
        **({"strengthened": "; ".join(stronger)} if (stronger := _strengthened(card)) else {}),
        "method": card.method,
        **{f"  {key}": brief(value) for key, value in _settings(card).items()},
        "base": f"{card.base}, weights {card.base_hash[:12]}" + (f", variant {card.variant}" if card.variant else ""),
        **({"forced": f"made for weights {card.forced_from[:12]}"} if card.forced_from else {}),
        **({"claims": "; ".join(_claims(card))} if card.claims else {}),
        "changes": f"{counted(len(weights), 'weight')}, {counted(size, 'number')}, {file.stat().st_size / 1e6:.2f} MB",
        "seed": card.seed,
        **({"calls": ", ".join(f"{key} {value}" for key, value in card.call.items())} if card.call else {}),
        "made with": ", ".join(f"{library} {version}" for library, version in card.versions.items()),
    }
    for key, value in lines.items():
        print(plain(f"{key:<16} {value}"))


def _settings(card: Card) -> dict[str, Any]:
    """A method's settings; of a merge, a line for each edit in it."""
    lines = {}
    for key, value in card.settings.items():
        edits = value if card.method == "merge" and key == "edits" and isinstance(value, list) else []
        if not edits or not all(isinstance(edit, dict) and isinstance(edit.get("concepts"), list) for edit in edits):
            lines[key] = value
            continue
        for k, edit in enumerate(edits):
            names = [str(concept.get("erase")) for concept in edit["concepts"] if isinstance(concept, dict)]
            lines[f"edit {k + 1}"] = f"{edit.get('weight')} x {', '.join(names)}, by {edit.get('method')}"
    return lines


def _strengthened(card: Card) -> list[str]:
    """What a merge subtracts."""
    edits = card.settings.get("edits") if card.method == "merge" else None
    return [
        str(concept.get("erase"))
        for edit in (edits if isinstance(edits, list) else [])
        if isinstance(edit, dict) and isinstance(edit.get("weight"), int | float) and edit["weight"] < 0
        for concept in (edit.get("concepts") or [])
        if isinstance(concept, dict)
    ]


def _claims(card: Card) -> list[str]:
    rows = card.claims.rows if card.claims else {}
    return [f"{row}: {100 * before:.1f} -> {100 * after:.1f} %" for row, (before, after) in rows.items()]


def _product(shape: list[int]) -> int:
    import math

    return math.prod(shape)
