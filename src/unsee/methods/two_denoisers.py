"""A pipeline with two denoisers, one for noisy steps and one for the rest: each is edited on the steps it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any, TypeVar, cast

from unsee.denoising.padding import reads_padding
from unsee.denoising.text_layers import find_text
from unsee.edits.edit import Edit
from unsee.fit.resume import ResumeFile
from unsee.models.borrow import borrowed
from unsee.models.denoisers import denoisers
from unsee.models.encoding import KEPT, each_text_once
from unsee.models.fingerprint import base_hash
from unsee.models.model import Model, Pipeline

Make = TypeVar("Make", bound=Callable[..., Edit])


def each_denoiser(make: Make) -> Make:
    """A method's call that edits the denoiser in focus becomes one that edits all denoisers of a pipeline.

    Two denoisers give one edit. Each fit keeps its own resume state; the points of the curve are the means of both.
    The pipeline is `borrowed`: frozen, in eval mode and quiet for the time, and afterwards what it was.
    """

    @wraps(make)
    def make_all(self: Any, pipe: Pipeline, concepts: Any, *, resume: ResumeFile | None = None, **options: Any) -> Edit:
        with borrowed(pipe), each_text_once(pipe, KEPT, reads_padding(pipe)):
            return made(self, Model.of(pipe), concepts, resume, options)

    def made(self: Any, pipe: Model, concepts: Any, resume: ResumeFile | None, options: dict[str, Any]) -> Edit:
        keys = list(denoisers(pipe))
        if len(keys) == 1:
            find_text(pipe)
            return make(self, pipe, concepts, resume=resume, **options)
        edits = []
        for key in keys:
            state = resume and replace(resume, path=resume.path.with_stem(f"{resume.path.stem}-{key}"))
            one = replace(pipe, focus=key)
            find_text(one)
            edits.append(make(self, one, concepts, resume=state, **options))
        points = zip(*(edit.card.curve for edit in edits), strict=False)  # one may have stopped early
        curve = tuple((p[0][0], *(sum(point[k] for point in p) / len(p) for k in (1, 2))) for p in points)
        card = replace(edits[0].card, base_hash=base_hash(pipe, keys), curve=curve)
        return Edit({name: delta for edit in edits for name, delta in edit.deltas.items()}, card)

    return cast(Make, make_all)
