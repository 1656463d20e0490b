"""The controls of attacks: other weights, the passes that a search takes, and what an attack does beyond a control."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from unsee.denoising.calls import bind_arguments, latent_and_time, stacked
from unsee.errors import InputError
from unsee.evaluate.attacked import ATTACKED, Cost, Excess, Row, strictest
from unsee.evaluate.statistics import paired_rates
from unsee.io.safetensors import read_header
from unsee.models.denoisers import denoiser
from unsee.models.model import Pipeline
from unsee.models.weights import own_parameters, temporary_values


class Passes:
    """Within the context counts rows that the denoiser answers, without a gradient and with one, and seconds."""

    def __init__(self, pipe: Pipeline):
        self._net = denoiser(pipe)[1]
        self._counts = [0, 0]
        self._since = time.perf_counter()

    def __enter__(self) -> Passes:
        def count(module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
            x = stacked(bind_arguments(module, args, kwargs)[latent_and_time(type(module))[0]])
            self._counts[torch.is_grad_enabled()] += len(x)

        self._handle = self._net.register_forward_hook(count, with_kwargs=True)
        self._since = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()

    def now(self) -> Cost:
        """What was taken until now."""
        return Cost(self._counts[0], self._counts[1], time.perf_counter() - self._since)

    def start(self) -> None:
        """Count from zero."""
        self._counts, self._since = [0, 0], time.perf_counter()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Within the context nothing is counted."""
        before, since = list(self._counts), time.perf_counter()
        try:
            yield
        finally:
            self._counts = before
            self._since += time.perf_counter() - since


def put_on(pipe: Pipeline, values: Mapping[str, Tensor]) -> Any:
    """A context in which the denoiser has these weights."""
    weights = own_parameters(denoiser(pipe)[1])
    return temporary_values(
        {name: weights[name] for name in values}, {name: x.to(weights[name]) for name, x in values.items()}
    )


def random_weights(pipe: Pipeline, seed: int) -> dict[str, Tensor]:
    """The denoiser's weights before any training: each layer as torch initialises it."""
    net = deepcopy(denoiser(pipe)[1])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for module in net.modules():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
    return {name: one.data for name, one in own_parameters(net).items()}


TWINS = "twins"
"""The folder of the repository with twins of the miniature, by name; it is in no wheel."""


def twin_folder(given: Path) -> Path:
    """A twin's folder or file: itself, or the one of that name in TWINS, here or in the repository."""
    places = [root / TWINS for root in (Path.cwd(), Path(__file__).parents[3])]
    return next((one for one in (given, *(place / given for place in places)) if one.exists()), given)


def read_twin(given: Path, pipe: Pipeline) -> dict[str, Tensor]:
    """The weights of a twin: a pipeline's folder, its denoiser's, a safetensors file, or a name (`twin_folder`).

    Raises InputError if it is not of the same family: the denoiser's names and shapes.
    """
    folder = twin_folder(given)
    key, net = denoiser(pipe)
    places = (
        [folder]
        if folder.is_file()
        else [*sorted((folder / key).glob("*.safetensors")), *sorted(folder.glob("*.safetensors"))]
    )
    if not places:
        raise InputError(f"{folder} is no twin: no safetensors file of a {key} is in it")
    found: dict[str, Tensor] = {}
    for file in places:
        read_header(file)
        try:
            found |= load_file(file)
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(f"{file} is broken: {error}") from error
    own = own_parameters(net)
    wrong = next((name for name in own if name not in found or found[name].shape != own[name].shape), None)
    if wrong:
        raise InputError(f"{folder} is no twin of this {type(net).__name__}: it has no {wrong!r} of the same shape")
    return {name: found[name] for name in own}


def excess(rows: Sequence[Row], hits: Mapping[tuple[str, str, str], Sequence[bool]]) -> list[Excess]:
    """What each attack did beyond its control, the most first.

    hits  by attack, row and column, whether each picture shows the concept; the same drawing seeds in all columns
    """
    found: dict[str, Excess] = {}
    for one in rows:
        if one.column != ATTACKED:
            continue
        own = hits[one.attack, one.row, ATTACKED]
        same = {row.column: row for row in rows if (row.attack, row.row) == (one.attack, one.row)}
        control = strictest(same.values())
        value = one.sure - (same[control].sure if control else 0.0)
        change = paired_rates(hits[one.attack, one.row, control], own) if control else None
        now = Excess(one.attack, one.axis, one, control, value, change, _half(rows, one.attack))
        if one.attack not in found or now.value > found[one.attack].value:
            found[one.attack] = now
    return sorted(found.values(), key=lambda one: -one.value)


def _half(rows: Sequence[Row], attack: str) -> int | None:
    """The fewest passes of a search after which half of the pictures show the concept, and fewer of the control's."""
    same: dict[str, dict[str, Row]] = {}
    for one in rows:
        if one.attack == attack:
            same.setdefault(one.row, {})[one.column] = one
    found = []
    for by in same.values():
        control = by.get(strictest(by.values()))
        if ATTACKED in by and by[ATTACKED].sure >= 0.5 > (control.sure if control else 0.0):
            found.append(by[ATTACKED].search.passes + by[ATTACKED].search.with_gradient)
    return min(found, default=None)
