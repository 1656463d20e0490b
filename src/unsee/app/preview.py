"""A picture that sharpens while a model is fitted."""

from __future__ import annotations

import time
from collections.abc import Callable

from PIL.Image import Image

from unsee.evaluate.words import article
from unsee.models.model import Model
from unsee.progress import Progress
from unsee.runs.api import generate
from unsee.runs.config import RunConfig

PREVIEW_SHARE = 0.2
"""The largest share of a fit's time that its preview may take."""

Show = Callable[[tuple[Image, Image]], object]


class Preview:
    """A Progress that draws one picture with the model as it is, now and then while it is fitted."""

    def __init__(self, model: Model, config: RunConfig, show: Show, progress: Progress):
        word = config.concepts[0].from_ or config.concepts[0].erase
        self.model, self.show, self.progress = model, show, progress
        self.prompt, self.seed = article(word), config.seed
        self.took = self.at = 0.0
        self.first = self._draw()  # with the base's weights
        show((self.first, self.first))

    def now(self) -> None:
        """Draw with the weights as they are."""
        self.show((self.first, self._draw()))

    def __call__(self, stage: str, done: int, total: int) -> None:
        self.progress(stage, done, total)
        due = done == total or time.monotonic() - self.at > self.took / PREVIEW_SHARE
        if stage == "fit" and done and due:
            self.now()

    def _draw(self) -> Image:
        start = time.monotonic()
        found = generate(self.model, self.prompt, seed=self.seed)[0]
        self.at = time.monotonic()
        self.took = self.at - start
        return found
