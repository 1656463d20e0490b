"""Draw words with a model and say whether they are absent or present: what `unsee check` does."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from unsee.attacks.context import named
from unsee.concepts import Concept
from unsee.edits.algebra import applied
from unsee.edits.edit import Edit
from unsee.errors import InputError, invalid
from unsee.evaluate.checked import ABSENT, PRESENT, VERSION, Checked, Word
from unsee.evaluate.counted import uncounted
from unsee.evaluate.detectors import Detector, detectors_of, names_of
from unsee.evaluate.render import Shot, render, sampling_of
from unsee.evaluate.statistics import rate
from unsee.evaluate.words import choices, known
from unsee.io.settings_file import read
from unsee.models.denoisers import denoisers
from unsee.models.fingerprint import base_hash
from unsee.models.load import open_model
from unsee.models.model import model_name, said_options
from unsee.models.text import check_prompts
from unsee.models.words import words_of
from unsee.progress import Progress, no_progress
from unsee.runs.aims import aims_of
from unsee.runs.folder import EDIT, RECORD, edit_name
from unsee.versions import versions

Share = Annotated[float, Field(gt=0, lt=1)]


class Rule(BaseModel):
    """What a check asks for.

    absent, present  words
    at_most   an absent word holds if the upper end of its 95 % interval is no more
    at_least  a present word holds if the lower end of its 95 % interval is no less
    n         pictures of each word; seed of the first
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    absent: tuple[str, ...] = ()
    present: tuple[str, ...] = ()
    at_most: Share = 0.1
    at_least: Share = 0.7
    n: Annotated[int, Field(ge=2)] = 48
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    steps: Annotated[int, Field(ge=1)] | None = None
    guidance_scale: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


def rule(**values: Any) -> Rule:
    """A Rule. Raises InputError on what is out of range, on no word, and on an n with which nothing could hold."""
    try:
        made = Rule(**values)
    except ValidationError as error:
        raise invalid(error, Rule.model_fields) from error
    words = (*made.absent, *made.present)
    if not words:
        raise InputError("name what must not be drawn or must still be drawn: `absent` church, `present` castle, dog")
    if both := next((word for word in made.absent if word in made.present), None):
        raise InputError(f"{both!r} cannot be both absent and present")
    best = rate([False] * made.n).high
    if made.absent and best > made.at_most:
        raise InputError(
            f"n = {made.n} is too small: 0 hits have the upper bound {100 * best:.1f} %; raise `pictures` or `at_most`"
        )
    best = rate([True] * made.n).low
    if made.present and best < made.at_least:
        raise InputError(
            f"n = {made.n} is too small: {made.n} hits have the lower bound {100 * best:.1f} %; raise `pictures` or "
            "lower `at_least`"
        )
    return made


def check(
    model: str,
    asked: Rule,
    *,
    edits: Sequence[str | Path] = (),
    detectors: dict[str, str] | None = None,
    command: str = "",
    batch: int = 32,
    progress: Progress = no_progress,
    **options: Any,
) -> Checked:
    """Draw each word's plain prompt n times with the model and its edits, and count.

    model    "mini", a pipeline folder, a hub id, or the folder of a run of erase: its model and its edit
    options  of models.load
    Raises InputError on anything that cannot work, and for a word that no detector can count.
    """
    folder = Path(model)
    if (folder / RECORD).is_file():
        made = read(folder / RECORD)
        model, edits = str(made.get("model")), (folder / EDIT, *edits)
        options = {"revision": made.get("revision"), "variant": made.get("variant"), **options}
    loaded = [(edit_name(Path(path)), Edit.load(path)) for path in edits]
    pipe = open_model(model, **options)
    words, every = words_of(pipe.card), (*asked.absent, *asked.present)
    concepts = [Concept(word) for word in every]
    given = detectors_of(pipe.card, detectors, choices=lambda kind: choices(kind, words, concepts))
    targets = []
    for concept in concepts:
        aims, label, kind = aims_of(pipe, concept, words, given)
        detector = given.get(kind or "")
        if not isinstance(detector, Detector):
            said = uncounted(concept.erase, known(words, names_of(given)), given)
            raise InputError(
                f"no detector counts {concept.erase!r}: {said or 'give a classifier as `detectors` objects=FOLDER'}"
            )
        targets.append((detector, label, named(aims["attacked"].template, aims["attacked"].word)))
    check_prompts(pipe, [prompt for *_, prompt in targets])
    sampling = sampling_of(pipe, asked.steps, asked.guidance_scale)
    shots = [Shot(prompt, asked.seed + k) for prompt in dict.fromkeys(p for *_, p in targets) for k in range(asked.n)]
    with ExitStack() as stack:
        if loaded:
            stack.enter_context(applied(pipe, [edit for _, edit in loaded]))
        hashed = base_hash(pipe, list(denoisers(pipe)))
        drawn = render(pipe, shots, sampling, batch=batch, progress=progress)
    found = []
    for k, (word, (detector, label, prompt)) in enumerate(zip(every, targets, strict=True)):
        seen = detector([drawn[Shot(prompt, asked.seed + j)] for j in range(asked.n)])
        wanted, limit = (ABSENT, asked.at_most) if k < len(asked.absent) else (PRESENT, asked.at_least)
        found.append(Word(word, wanted, prompt, label, rate([one == label for one in seen]), limit))
    return Checked(
        schema=VERSION,
        command=command,
        model={"name": model_name(pipe), "hash": hashed},
        edits=tuple({"name": name, "method": e.card.method, "hash": e.fingerprint()} for name, e in loaded),
        sampling={**asdict(sampling), "call": said_options(pipe)},
        n=asked.n,
        seed=asked.seed,
        detectors={kind: one.source for kind, one in given.items()},
        versions=versions(),
        words=tuple(found),
        passed=all(one.holds for one in found),
    )
