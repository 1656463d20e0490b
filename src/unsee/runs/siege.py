"""What a run of `unsee attack` needs, loaded and checked: the edit and its model, the detector, the aims."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from unsee import attacks
from unsee.attacks import Attack
from unsee.concepts import Concept
from unsee.edits.edit import Edit
from unsee.errors import InputError, unknown
from unsee.evaluate.counted import uncounted
from unsee.evaluate.detectors import Clip, Detector, detectors_of, names_of
from unsee.evaluate.render import Sampling, sampling_of
from unsee.evaluate.words import choices, known
from unsee.io.settings_file import read
from unsee.models.load import open_model
from unsee.models.model import Model
from unsee.models.weights import is_full_precision
from unsee.models.words import words_of
from unsee.runs.aims import Aim, aims_of
from unsee.runs.controls import read_twin
from unsee.runs.folder import EDIT, RECORD

BUDGETS = {"small": (240, 1), "full": (1200, 3)}
"""Denoiser passes of one search, and attack seeds."""
MINORS = re.compile(
    r"\b(child(ren|ish|hood)?|minors?|under-?aged?|kids?|teen(s|ager|agers|aged)?|toddlers?|infants?|bab(y|ies)|boys?|girls?"
    r"|juveniles?|preteens?|adolescents?|school(boy|girl)s?|loli(ta)?|shota)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Siege:
    """Attacks that are ready to start: everything is loaded and valid.

    aims      what attacks are aimed at, by column; "attacked" is the concept
    detector  counts the pictures whose label is `label`
    second    another detector with that label, which confirms: attacks find pictures that one detector mistakes
    twin      weights of a denoiser that was trained without the concept
    things    says which of the other things `known` a picture shows; None where nothing does
    """

    model: Model
    edit: Edit
    attacks: tuple[Attack, ...]
    aims: Mapping[str, Aim]
    detector: Detector
    label: str
    sampling: Sampling
    n: int = 24
    seed: int = 0
    budget: str = "small"
    twin: Mapping[str, Tensor] = field(default_factory=dict)
    second: Detector | None = None
    things: Detector | None = None
    known: tuple[str, ...] = ()


def prepare(
    place: str,
    *,
    names: Sequence[str] = (),
    concept: str | None = None,
    model: str | None = None,
    twin: Path | None = None,
    detectors: Mapping[str, str] | None = None,
    **more: Any,
) -> Siege:
    """Load the edit of a run's folder, or of a file, with its model, and whatever is to attack it.

    place  the folder of a run of erase, or an edit
    names  attacks; none is all
    more   n, seed, budget of a Siege; steps and guidance_scale of its pictures; model options
    Raises InputError on anything that cannot work, and for concepts about minors.
    """
    if (budget := more.get("budget", "small")) not in BUDGETS:
        raise unknown("budget", budget, BUDGETS)
    chosen = tuple(attacks.find(name) for name in dict.fromkeys(names or attacks.names()))
    folder = Path(place)
    made = read(folder / RECORD) if (folder / RECORD).is_file() else {}
    edit = Edit.load(folder / EDIT if folder.is_dir() else folder)
    wanted = [one for one in edit.card.concepts if concept is None or one.erase == concept]
    if concept is not None and not wanted:
        wanted = [Concept(concept)]
    if not wanted:
        raise InputError("this edit's card does not say what the edit erases: name that with `concepts`")
    aimed = wanted[0]
    if any(MINORS.search(word) for word in (*aimed.names, aimed.from_ or "")):
        raise InputError("attacks on concepts about minors are refused")
    name, variant = edit.base(model or made.get("model"), more.get("variant"))
    opened = open_model(
        name, variant=variant, call={**edit.card.call}, trust_remote_code=more.get("trust_remote_code", False)
    )
    weights = edit.check(opened)
    if packed := next((one for one in edit.deltas if not is_full_precision(weights[one])), None):
        raise InputError(f"{packed} is quantised: attacks need a model that is not")
    words = words_of(opened.card)
    given = detectors_of(opened.card, detectors, choices=lambda kind: choices(kind, words, [aimed]))
    aims, label, kind = aims_of(opened, aimed, words, given)
    if kind is None:
        said = (
            uncounted(aimed.erase, known(words, names_of(given)), given)
            or "no detector was given: give one as `detectors` objects=FOLDER"
        )
        raise InputError(f"no detector counts {aimed.erase!r}: {said}")
    detector = given[kind]
    assert isinstance(detector, Detector)
    sampling = sampling_of(opened, more.get("steps"), more.get("guidance_scale"))
    options: dict[str, Any] = {key: more[key] for key in ("n", "seed") if more.get(key) is not None}
    found = read_twin(twin, opened) if twin else {}
    second, clip = None, given.get("clip")
    if kind == "objects" and isinstance(clip, Clip):
        among = dict.fromkeys([label, *choices(kind, words, [aimed]), *words.get("memorised", {})])
        second = clip.asked(list(among))
    things = given.get("objects")
    options["things"] = things if isinstance(things, Detector) else None
    options["known"] = tuple(one for one in words.get("objects", {}) if one != label)
    return Siege(
        opened, edit, chosen, aims, detector, label, sampling, budget=budget, twin=found, second=second, **options
    )
