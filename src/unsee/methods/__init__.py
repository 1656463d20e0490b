"""Methods by name. A method is one file and one row under `unsee.methods` in a package's entry points."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from unsee.errors import unknown

if TYPE_CHECKING:
    from torch import nn

    from unsee.concepts import Concept
    from unsee.edits.edit import Edit
    from unsee.fit.resume import ResumeFile
    from unsee.models.model import Pipeline
    from unsee.progress import Progress


class Method(Protocol):
    """A frozen dataclass of hyperparameters that one calls. It leaves the pipeline as it was.

    presets     settings by name
    resume      where a long fit keeps its state; what takes a second needs none
    """

    presets: ClassVar[dict[str, dict[str, Any]]]

    def weights(self, net: nn.Module) -> dict[str, nn.Parameter]:
        """The parameters of a denoiser that an edit would change, by name. Raises InputError if there is none."""

    def resolved(self, net: nn.Module, concepts: Sequence[Concept]) -> Self:
        """With numbers for all that a setting leaves open, as they are for a denoiser and concepts."""

    def __call__(
        self,
        pipe: Pipeline,
        concepts: str | Concept | Sequence[str | Concept],
        *,
        seed: int = 0,
        progress: Progress = ...,
        resume: ResumeFile | None = None,
    ) -> Edit: ...


def names() -> list[str]:
    """The methods that are installed."""
    return sorted(entry.name for entry in entry_points(group="unsee.methods"))


def find(name: str) -> Any:
    """The class of a method. Raises InputError for an unknown name."""
    for entry in entry_points(group="unsee.methods"):
        if entry.name == name:
            return entry.load()
    raise unknown("method", name, names())
