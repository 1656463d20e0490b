"""What a model's card says of how it is drawn with and who looks at its pictures."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from unsee.concepts import Concept
from unsee.edits.edit import Edit
from unsee.errors import InputError
from unsee.evaluate.detectors import AnyDetector, load_detector
from unsee.evaluate.render import Sampling
from unsee.evaluate.words import choices, read_words
from unsee.models.model_card import model_card
from unsee.models.names import model_folder


def judges_for(
    model: str,
    given: Mapping[str, str],
    kinds: Collection[str] | None = None,
    *,
    choices: Callable[[str], Sequence[str]] = lambda kind: (),
) -> dict[str, AnyDetector]:
    """Judges by kind: those that a model's card names, and the given ones in their place or beside them.

    kinds    which to load; None is all
    choices  what a CLIP model has to choose among as a judge of a kind
    """
    sources = {**model_card(model).get("judges", {}), **given}
    wanted = {kind: str(source) for kind, source in sources.items() if kinds is None or kind in kinds}
    return {kind: load_detector(source, kind, choices(kind)) for kind, source in wanted.items()}


def words_for(model: str) -> dict[str, Any]:
    """What a model's card says that it can be asked for; {} if it says nothing."""
    said = model_card(model)
    return read_words(Path(said["words"])) if "words" in said else {}


def choices_for(model: str, concepts: Sequence[Concept]) -> Callable[[str], Sequence[str]]:
    """What a CLIP model has to choose among as a judge of a kind, when `concepts` are erased from a model."""
    words = words_for(model)
    return lambda kind: choices(kind, words, concepts)


def sampling_for(model: str, steps: int | None, guidance_scale: float | None) -> Sampling:
    """How to draw with a model: as asked, else as its card says, else with diffusers' usual numbers."""
    said = model_card(model)
    default = Sampling()
    return Sampling(
        said.get("steps", default.steps) if steps is None else steps,
        said.get("guidance_scale", default.guidance_scale) if guidance_scale is None else guidance_scale,
    )


def base_of(edit: Edit) -> str:
    """The model that an edit was made for, as `load` takes it. Raises InputError where its card has only its name."""
    base = edit.card.base
    try:
        model_folder(base)
    except InputError as error:
        raise InputError(f"the edit was made for {base!r}, which is not here under that name: give --model") from error
    return base
