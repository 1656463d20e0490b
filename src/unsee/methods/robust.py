r"""Robust: what hybrid learns, in all layers, with adversarial rounds between the updates.

    1. solve   the closed form of hybrid.py, where matrices read the prompt
    2. fit     ESD's targets (eq. 6 of esd.py) with the concept's prompts, with no prompt, and with every text that an
               attack found, in the keys and values (ESD-x-strict) and in all other layers (ESD-u) together; beside
               preservation prompts
    3. attack  the model as it is, every few updates (rounds.py)

Keys and values alone hide a name: they cannot forget, since a matrix of full rank reads some text as it read the name
before. The other layers alone answer the name's way round. Each is strong where the other is weak.
It raises what an attack costs and does not stop one: on the miniature a soft prompt of 60 denoiser passes brings back
nothing and one of 240 all, and half of the knowledge stays (docs/LOG.md has the tables, and what else was tried).

Searches learn texts by Adam, number by number. So this edit depends on the basis in which text features are written;
those of other methods do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Self

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import nn

from unsee.concepts import Concept, concepts_of
from unsee.edits.edit import Edit
from unsee.errors import one_line
from unsee.fit.resume import ResumeFile
from unsee.fit.search import ROWS
from unsee.methods.hybrid import Recipe
from unsee.methods.learners import dense
from unsee.methods.presets import Count
from unsee.methods.rounds import Rounds
from unsee.methods.settings import Settings
from unsee.methods.targets import esd_target
from unsee.methods.two_denoisers import each_denoiser
from unsee.models.model import Pipeline
from unsee.progress import Progress, no_progress

UPDATES, RUNS = 120, 16


@one_line
@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Robust(Settings):
    """Erase concepts so that attacks on text do not bring them back; the top of its file explains it.

    rounds    rounds of attacks, spread over the updates
    searches  updates of each search for a text

    All other settings are hybrid's. Calling it with a pipeline and one or more concepts returns an Edit and leaves the
    pipeline as it was. Raises InputError on a setting that is unknown or out of range.

        >>> edit = unsee.Robust(updates=2, rounds=1, searches=2)(pipe, "church")
        >>> with edit.applied(pipe): pictures = unsee.generate(pipe, "a church")
    """

    select: str = "all"
    batch: Count = 12
    keep_runs: Count = 48
    rounds: Count = 5
    searches: Count = 30

    presets: ClassVar[dict[str, dict[str, Any]]] = {}

    def resolved(self, net: nn.Module, concepts: Sequence[Concept]) -> Self:
        """With numbers of updates and runs where the settings leave them open."""
        return replace(self, updates=self.updates or UPDATES, runs=self.runs or RUNS)

    @property
    def every(self) -> int:
        """Updates from one round of attacks to the next."""
        return max(1, (self.updates or UPDATES) // self.rounds)

    def passes(self, concepts: Sequence[Concept]) -> tuple[int, int]:
        """As hybrid's, with the base's answers to the rows that attacks learn from, and three searches a round."""
        plain, gradients = super().passes(concepts)
        assert self.updates
        assert self.runs
        rounds = -(-self.updates // self.every)
        knows = len(concepts) * self.runs * self.record_steps
        found = 4 * rounds  # to find where tokens stand in what the denoiser reads
        return plain + knows + found, gradients + 3 * rounds * self.searches * ROWS

    @each_denoiser
    def __call__(
        self,
        pipe: Pipeline,
        concepts: str | Concept | Sequence[str | Concept],
        *,
        seed: int = 0,
        progress: Progress = no_progress,
        resume: ResumeFile | None = None,
    ) -> Edit:
        rounds = Rounds(self.every, self.searches)
        recipe = Recipe("robust", self, dense, partial(esd_target, self.eta), rounds)
        return recipe.edit(pipe, concepts_of(concepts), seed, progress, resume)
