"""What an attack works with, and what it yields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from PIL.Image import Image

from unsee.models.model import Pipeline

Applied = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Found:
    """What to draw. Picture k of n is drawn from seed k of the run's drawing seeds.

    row       what this is, such as "8 pictures, all weights, 15 updates"; the same whatever was found
    note      what was found, such as a prompt
    prompts   picture k is drawn from prompt k modulo their number
    n         pictures; None is the run's number
    steps, guidance_scale  of the sampler; None is the run's
    sampler   name of a diffusers scheduler; "pipeline" is the pipeline's own
    options   other options of the pipeline's call
    each      options with one value for each picture: latents (n, ...) or a list of n pictures
    pipe      the pipeline to draw with, of the same parts; None is the attacked one
    applied   puts what was found on the attacked model, as a context
    """

    row: str
    prompts: tuple[str, ...]
    note: str = ""
    n: int | None = None
    steps: int | None = None
    guidance_scale: float | None = None
    sampler: str = "pipeline"
    options: Mapping[str, Any] = field(default_factory=dict)
    each: Mapping[str, Any] = field(default_factory=dict)
    pipe: Pipeline | None = None
    applied: Applied = nullcontext


def named(template: str, word: str) -> str:
    """A prompt that names a word; "a {}" takes its article from it."""
    if template.startswith("a {}") and word[:1].lower() in tuple("aeiou"):
        template = f"an{template[1:]}"
    return template.format(word)


@dataclass(frozen=True)
class AttackContext:
    """What an attack works with. It has no detector.

    pipe      the attacked model: its weights are in the pipeline while the attack runs
    word      the concept's name
    template  how a prompt names something of the concept's kind, such as "a {}"
    names     other names of the concept, by what they are: "synonyms", "languages", "descriptions"
    others    names of other things that the model knows
    seed      random seed of the attack
    passes    denoiser passes that the search may take; a pass with a gradient counts as one
    n         pictures that will be drawn of each Found
    steps, guidance_scale  of the run's pictures
    draw      (prompt, k) -> k pictures that the base draws, on seeds that no Found is drawn from
    base      puts the base's weights in the place of the attacked model's, as a context
    start     says that a search begins: passes count from here, and not what pictures and recorded runs took
    thorough  whether the budget is "full": rarer variants are then tried too
    """

    pipe: Pipeline
    word: str
    template: str
    names: Mapping[str, tuple[str, ...]]
    others: tuple[str, ...]
    seed: int
    passes: int
    n: int
    steps: int
    guidance_scale: float
    draw: Callable[[str, int], list[Image]]
    base: Applied
    start: Callable[[], None]
    thorough: bool = False

    @property
    def prompt(self) -> str:
        """The prompt that names the concept."""
        return self.named(self.word)

    def named(self, word: str) -> str:
        """The prompt that names a word."""
        return named(self.template, word)

    def pictures(self, k: int) -> list[Image]:
        """k pictures of the concept."""
        return self.draw(self.prompt, k)
