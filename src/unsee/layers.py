"""Which weights an edit may change, and how to put others in their place for a while."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

from unsee.errors import InputError, unknown


def _matches(pattern: str) -> Callable[[str], bool]:
    return lambda parameter: re.search(pattern, parameter) is not None


_cross = _matches(r"\battn2\.")

SELECTIONS: dict[str, Callable[[str], bool]] = {
    "cross": _cross,
    "cross-kv": _matches(r"\battn2\.to_[kv]\."),
    "self": _matches(r"\battn1\."),
    "noncross": lambda parameter: not _cross(parameter),
    "all": lambda parameter: True,
}
"""The selections of the ESD paper (Sec. 4.1) by parameter name: attn2 is cross-attention, attn1 self-attention.

    cross     ESD-x: what a prompt names (styles, objects, people)            43.96 M of SD 1.4's 859.5 M
    cross-kv  ESD-x-strict: the two projections that read the text            19.17 M
    self      self-attention                                                  49.57 M
    noncross  ESD-u: all but cross-attention; what appears unnamed (nudity)  815.56 M
    all       everything                                                     859.52 M

The authors' present code leaves normalisation layers out of ESD-u; their first code leaves out the time embedding
and the output layer instead. Here "noncross" is what it says.
"""


def reads_text(parameter: str) -> bool:
    """Whether a parameter is a matrix whose inputs are the prompt's tokens."""
    return SELECTIONS["cross-kv"](parameter) and parameter.endswith(".weight")


def select(denoiser: nn.Module, selection: str) -> dict[str, nn.Parameter]:
    """The parameters of a denoiser that a selection names. Raises InputError if it is unknown or matches nothing."""
    if selection not in SELECTIONS:
        raise unknown("selection", selection, SELECTIONS)
    parameters = dict(denoiser.named_parameters())
    chosen = {name: value for name, value in parameters.items() if SELECTIONS[selection](name)}
    if not chosen:
        would = [other for other, match in SELECTIONS.items() if any(map(match, parameters))]
        raise InputError(
            f"selection {selection!r} matches nothing in {type(denoiser).__name__}: {', '.join(would)} would"
        )
    return chosen


@contextmanager
def swapped(parameters: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]) -> Iterator[None]:
    """Within the context the parameters hold `values`; afterwards they hold the very tensors they held before.

    No bit is computed on the way back, so a model is exactly what it was, also after an exception.
    """
    before = {name: parameters[name].data for name in values}
    try:
        for name, value in values.items():
            parameters[name].data = value
        yield
    finally:
        for name, value in before.items():
            parameters[name].data = value
