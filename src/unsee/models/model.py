"""A model as every function here takes it: a diffusers pipeline, alone or with what is known of it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from pydantic_core import to_jsonable_python

from unsee.errors import InputError, unknown
from unsee.models.model_card import ModelCard
from unsee.models.names import BUNDLED

OURS = {"prompt", "generator", "num_inference_steps", "guidance_scale", "output_type", "return_dict"}
"""Options of a pipeline's call that this tool gives by itself."""


class Pipeline(Protocol):
    """What unsee needs of a text-to-image pipeline. Every pipeline of diffusers has it, and so does a `Model`."""

    @property
    def components(self) -> dict[str, Any]: ...
    @property
    def scheduler(self) -> Any: ...
    @property
    def device(self) -> Any: ...
    @property
    def dtype(self) -> Any: ...
    def __call__(self, *args: Any, **options: Any) -> Any: ...


class Loaded(Pipeline, Protocol):
    """What `unsee.load` returns: a pipeline of diffusers, with the attributes of its class, such as `unet`."""

    def __getattr__(self, name: str) -> Any: ...


@dataclass(frozen=True)
class Model:
    """A pipeline with what is known of it. It is opened once, then passed on in the pipeline's place.

    pipe      the diffusers pipeline; no attribute is ever set on it
    name      how cards name the model: "mini", a hub id@commit, or the last part of a path; then +LoRA
    revision  commit on the hub
    card      what the model's own card says
    call      options of every call, in recorded runs and in pictures, such as {"height": 512}
    left_out  safety checkers and watermarkers that were taken out when it was loaded
    variant   variant of its files, such as "fp16"; None: the plain files
    focus     with two denoisers, the one that is trained and at whose steps runs are recorded

    Fields are changed by `dataclasses.replace`. Raises InputError for a call option that the pipeline does not take.

        >>> model = unsee.Model.of(pipe, call={"height": 32, "width": 32})
        >>> picture = model("a church").images[0]
    """

    pipe: Any
    name: str = ""
    revision: str | None = None
    card: ModelCard = field(default_factory=ModelCard)
    call: Mapping[str, Any] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    variant: str | None = None
    focus: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or _named(self.pipe))
        _check_options(self.pipe, self.call)

    @classmethod
    def of(cls, pipe: Pipeline, call: Mapping[str, Any] | None = None) -> Model:
        """The Model of a pipeline, with all that is known if `unsee.load` made it; `call` goes over its call options.

        A Model is returned as it is.
        """
        known = pipe if isinstance(pipe, Model) else cls(pipe, **_LOADED.get(pipe, {}))
        return replace(known, call={**known.call, **call}) if call else known

    @property
    def components(self) -> dict[str, Any]:
        return dict(self.pipe.components)

    @property
    def scheduler(self) -> Any:
        return self.pipe.scheduler

    @property
    def device(self) -> Any:
        return self.pipe.device

    @property
    def dtype(self) -> Any:
        return self.pipe.dtype

    def __call__(self, *args: Any, **options: Any) -> Any:
        """The pipeline's call with the call options; those given go over them."""
        return self.pipe(*args, **{**self.call, **options})


_LOADED: WeakKeyDictionary[Pipeline, dict[str, Any]] = WeakKeyDictionary()
"""What is known of pipelines that were loaded here: fields of their Models."""


def remembered(model: Model) -> Model:
    """The same Model; `Model.of` gives it again for its pipeline, as long as that lives."""
    _LOADED[model.pipe] = {name: value for name, value in vars(model).items() if name != "pipe"}
    return model


def raw(pipe: Pipeline) -> Any:
    """The diffusers pipeline of a Model; a pipeline as it is."""
    return pipe.pipe if isinstance(pipe, Model) else pipe


def kind(pipe: Pipeline) -> type:
    """The class of a pipeline."""
    return type(raw(pipe))


def model_name(pipe: Pipeline) -> str:
    """How a card names the model of a pipeline."""
    return Model.of(pipe).name


def variant_of(pipe: Pipeline) -> str | None:
    """The variant of its files that a pipeline was loaded from; None: the plain files."""
    return Model.of(pipe).variant


def call_options(pipe: Pipeline) -> dict[str, Any]:
    """Options of all calls of a pipeline."""
    return dict(Model.of(pipe).call)


def said_options(pipe: Pipeline) -> dict[str, Any]:
    """The same for a card, as JSON; a picture and the like are replaced by their type."""
    said: dict[str, Any] = to_jsonable_python(call_options(pipe), fallback=lambda value: type(value).__name__)
    return said


def _named(pipe: Any) -> str:
    origin = str(getattr(pipe, "name_or_path", "") or "in memory")
    if bundled := next((name for name, folder in BUNDLED.items() if folder == Path(origin)), None):
        return bundled
    return Path(origin).name if Path(origin).is_dir() else origin


def _check_options(pipe: Any, options: Mapping[str, Any]) -> None:
    """Raise InputError for options that a pipeline's call does not take, or that have an option of their own here."""
    taken = inspect.signature(type(pipe).__call__).parameters
    ours = OURS - ({"guidance_scale"} if "true_cfg_scale" in taken else set())
    for name in options:
        if name in ours:
            raise InputError(f"{name} cannot be a call option of {type(pipe).__name__}: unsee sets it for each call")
        if name not in taken:
            raise unknown(f"option of {type(pipe).__name__}", name, set(taken) - {"self"} - ours)
