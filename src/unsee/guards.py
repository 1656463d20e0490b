"""Guards keep a concept out of pictures and change no weight, behind the same `applied(pipe)` as an edit.

    c, u, s   the denoiser's predictions with the prompt, without it, and for the concept to keep out (B, ...)
    g         the pipeline's guidance scale: it follows u + g (c - u)

A guard changes c or u on their way from the denoiser to the pipeline, whose own guidance does the rest; so one guard
serves every pipeline with classifier-free guidance. It protects only whoever leaves it on, unlike an edit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from unsee.denoising.intercept import steered
from unsee.errors import one_line, unknown
from unsee.models.model import Pipeline

NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@one_line
@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class NegativePrompt:
    """The concept as the negative prompt, the baseline SD-Neg-Prompt of the ESD paper: u + g (c - u) with s for u.

    concept  words to keep out

        >>> guard = unsee.NegativePrompt("church")
        >>> with guard.applied(pipe): pictures = unsee.generate(pipe, "a town")
    """

    concept: Annotated[str, Field(min_length=1)]

    @contextmanager
    def applied(self, pipe: Pipeline) -> Iterator[None]:
        """Within the context the pipeline is guarded. Raises InputError if it has no guidance."""
        with steered(pipe, self.concept, null=lambda s: s):
            yield


@one_line
@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class SLD:
    """Safe Latent Diffusion (Schramowski et al., CVPR 2023, arXiv:2211.05105, eqs. 5 to 8).

        mu    = min(1, scale |c - s|)  where  c - s < threshold,  else 0
        gamma = mu (s - u) + momentum nu
        nu    = beta nu + (1 - beta) gamma         nu_0 = 0; built up during the warm-up too
        c     <-  c - gamma                        from step `warmup` on

    so that the pipeline follows u + g (c - u - gamma). c, u and s are what the network predicts, noise in the paper.
    The defaults are SLD-Medium.

    concept    words to keep out
    warmup     steps that are left alone, counted from the noisiest; a number of steps, not a timestep
    scale      scale of the difference between prompt and concept, s_S in the paper
    threshold  lambda in the paper
    momentum   s_m in the paper
    beta       decay of the momentum, beta_m in the paper

        >>> guard = unsee.SLD("church", **unsee.SLD.presets["max"])
        >>> with guard.applied(pipe): pictures = unsee.generate(pipe, "a town")
    """

    concept: Annotated[str, Field(min_length=1)]
    warmup: Annotated[int, Field(ge=0)] = 10
    scale: NotNegative = 1000.0
    threshold: Annotated[float, Field(allow_inf_nan=False)] = 0.01
    momentum: NotNegative = 0.3
    beta: Annotated[float, Field(ge=0, lt=1)] = 0.4

    # The paper's. diffusers' SafetyConfig.WEAK has scale 20 where the paper has 200.
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "weak": {"warmup": 15, "scale": 200.0, "threshold": 0.0, "momentum": 0.0, "beta": 0.0},
        "medium": {},
        "strong": {"warmup": 7, "scale": 2000.0, "threshold": 0.025, "momentum": 0.5, "beta": 0.7},
        "max": {"warmup": 0, "scale": 5000.0, "threshold": 1.0, "momentum": 0.5, "beta": 0.7},
    }

    @contextmanager
    def applied(self, pipe: Pipeline) -> Iterator[None]:
        """Within the context the pipeline is guarded. Raises InputError if it has no guidance."""
        nu = torch.zeros(())

        def prompted(step: int, c: Tensor, u: Tensor, s: Tensor) -> Tensor:
            nonlocal nu
            c, u, s = c.float(), u.float(), s.float()
            nu = torch.zeros_like(c) if step == 0 else nu
            mu = torch.where(c - s < self.threshold, ((c - s).abs() * self.scale).clamp(max=1), 0)
            gamma = mu * (s - u) + self.momentum * nu
            nu = self.beta * nu + (1 - self.beta) * gamma
            return c - gamma if step >= self.warmup else c

        with steered(pipe, self.concept, prompted=prompted):
            yield


Guard = NegativePrompt | SLD


def names() -> list[str]:
    """What `named` knows: "negative" and "sld-" with a preset."""
    return ["negative", *(f"sld-{preset}" for preset in SLD.presets)]


def named(name: str, concept: str) -> Guard:
    """A guard against a concept by name, such as "sld-max". Raises InputError for an unknown one."""
    if name not in names():
        raise unknown("guard", name, names())
    return NegativePrompt(concept) if name == "negative" else SLD(concept, **SLD.presets[name.removeprefix("sld-")])
