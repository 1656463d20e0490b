r"""UCE: move what the model reads in the concept's name to what it reads in its place; solved, not trained.

Gandikota, Orgad, Belinkov, Materzynska, Bau: "Unified Concept Editing in Diffusion Models", WACV 2024,
arXiv:2308.14761. For every matrix W0 through which the prompt enters (weights.text_input_weights):

    W  =  argmin  sum_i E|W c_i - W0 v_i|^2  +  s E|W p - W0 p|^2                                       (eq. 7)
    v_i  =  a_i - eta (c_i - a_i)

c_i is the matrix's input for a token of a name that is erased, a_i that for the same token with what takes the name's
place, p one of what must stay. With D = W - W0, K = sum_i E[(v_i - c_i) c_i^T] and S = sum_i E[c_i c_i^T] + s E[p p^T],
which is R R^T, the gradient is zero where

    D S = W0 K,   so   D R = W0 K R^-T,   of which the n largest singular vectors are kept, one for each name.

That is the optimum among all D of rank n (reduced-rank regression: Izenman, 1975), and the same function in any basis
and scale in which a text encoder writes. It is computed in float64 and kept as float32.

Departures from the paper
- Without an anchor, a is what any word would say there: random words of the tokenizer stand in for the name, of as many
  tokens, so that all other tokens keep their places. In the paper it is the empty prompt, of other tokens than c.
- eta steers beyond a, as ESD's does beyond the unconditional prediction. The paper's is 0.
- c runs over all tokens that the name changes, in all templates and beside many random words (prompts.CONTEXTS):
  beside other words a text encoder writes a name differently than alone, and where it looks back, the end mark and
  the padding hold the name too. a is the same token of the same prompt with another word there. So each token moves as
  far as it holds the name. The authors' code has one column a name, its last token alone, and its first version all
  from there to the end of the padding: on the miniature the last token of a bare name moves nothing (docs/LOG.md). For
  "" its index of the last token points at the begin mark, which says nothing; here places are compared in pairs.
- The rank is the number of names. All of D follows the random words that stand in, and costs others (docs/LOG.md).
- What stays is a mean over all tokens of all words in the same contexts, not a sum over last tokens: s means the same
  for ten words and for a thousand. Half of it are those of `keep`, half random words of the tokenizer and neutral ones.
- The paper's lambda |W - W0|^2 is left out. It depends on the basis in which a text encoder writes, and changed
  nothing on the miniature (docs/LOG.md).
`UCE.presets["paper"]` takes back eta, templates and contexts, not these columns and words that stand in. Its words that
stay are random ones, with the weight that the authors' code gives to |W - W0|^2.

A name cannot be erased from another one (`from_`): a matrix sees only tokens, and has no prediction to steer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from unsee.concepts import Concept, concepts_of, to_keep
from unsee.denoising.activations import second_moments
from unsee.edits.edit import Edit, LowRank
from unsee.errors import one_line
from unsee.fit.optimizers import root
from unsee.fit.resume import ResumeFile
from unsee.methods.closed_form import changed_by, named_only, solvable, whole
from unsee.methods.columns import read_names
from unsee.methods.presets import NotNegative, Number, Templates
from unsee.methods.prompts import (
    NEUTRAL,
    TEMPLATES,
    other_words,
    preservation_prompts,
    preserved_words,
    with_contexts,
)
from unsee.methods.rece import brought_back
from unsee.methods.targets import card_of
from unsee.methods.two_denoisers import each_denoiser
from unsee.models.denoisers import denoiser
from unsee.models.distributed import whole_tensor
from unsee.models.model import Pipeline
from unsee.progress import Progress, no_progress


def solve(W0: Tensor, K: Tensor, S: Tensor, rank: int) -> LowRank:
    """The D of this rank that leads from W0 nearest to the optimum of eq. 7, as up @ down.

    W0    (out, features)
    K, S  (features, features), see the top of this file
    """
    R = root(S, W0.dtype).cpu()
    W0, K = W0.detach().double().cpu(), K.double().cpu()
    u, s, v = torch.linalg.svd(W0 @ torch.linalg.solve_triangular(R, K.T, upper=False).T, full_matrices=False)
    down = torch.linalg.solve_triangular(R, v[:rank], upper=False, left=False)
    return LowRank((u[:, :rank] * s[:rank]).float(), down.float().contiguous())


@one_line
@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class UCE:
    """Erase concepts with UCE; the formula is at the top of its file.

    eta          how far to steer beyond what takes the name's place
    keep_weight  s: how strictly what must stay is preserved
    context_words   random context words for each prompt of prompts.CONTEXTS: columns from contexts and from end tokens,
                    as in TRCE's first stage (arXiv:2503.07389)
    preserve_words  random words of the tokenizer that must stay, but for other names of the concept; 0: none
    rece         rounds that erase what brings a name back through the edited matrices (rece.py)
    templates    prompts; {} is the concept's name, or a word that must stay
    neutral      words that must stay, beside the concept's own `keep`

    Calling it with a pipeline and one or more concepts returns an Edit and leaves the pipeline as it was.
    Raises InputError on a setting that is unknown or out of range.

        >>> edit = unsee.UCE()(pipe, "church")
        >>> path = edit.save("church.safetensors")
    """

    eta: NotNegative = 0.7
    keep_weight: NotNegative = 0.3
    context_words: Number = 32
    preserve_words: Number = 384
    rece: Number = 0
    templates: Templates = TEMPLATES
    neutral: tuple[str, ...] = NEUTRAL

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {
            "eta": 0.0,
            "keep_weight": 0.1,
            "context_words": 0,
            "templates": ("{}",),
            "neutral": (),
        },
    }

    def weights(self, net: nn.Module) -> dict[str, nn.Parameter]:
        """The matrices that change: those through which the prompt enters. Raises InputError if there is none."""
        return solvable(net)

    def resolved(self, net: nn.Module, concepts: Sequence[Concept]) -> Self:
        """Itself: its settings leave nothing open."""
        return self

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
        concepts = named_only("uce", concepts_of(concepts))
        key, net = denoiser(pipe)
        rng = torch.Generator().manual_seed(seed)
        weights = {name.removesuffix(".weight"): weight for name, weight in self.weights(net).items()}
        named = len(to_keep(concepts))
        kept = (
            *preserved_words(concepts, self.neutral),
            *other_words(pipe, self.preserve_words, concepts, list(weights), rng, progress),
        )
        card = card_of("uce", self, concepts, pipe, seed, kept)

        ways = with_contexts(pipe, self.templates, self.context_words, concepts, rng)
        known = preservation_prompts(kept, named, self.templates, ways, rng)
        moments = second_moments(pipe, known, list(weights), progress=progress) if kept else {}
        found = optimum(pipe, concepts, weights, moments, ways, rng, self, progress)
        return Edit({f"{key}.{layer}.weight": delta for layer, delta in found.items()}, card)


def optimum(
    pipe: Pipeline,
    concepts: Sequence[Concept],
    weights: Mapping[str, Tensor],
    moments: Mapping[str, Tensor],
    ways: Sequence[str],
    rng: torch.Generator,
    how: UCE,
    progress: Progress = no_progress,
) -> dict[str, LowRank]:
    """What leads each layer's matrix to the optimum of eq. 7.

    weights  the matrices by the names of their layers, (out, features)
    moments  of the layers' inputs for what must stay, (features, features); nothing stays where there is none
    how      of its settings eta, keep_weight and rece
    """
    shifts: dict[tuple[str, ...], Tensor] = {}  # of each tensor, by the layers that read it
    sizes: dict[tuple[str, ...], Tensor] = {}
    names: dict[tuple[str, ...], list[tuple[Tensor, Tensor]]] = {}
    for heard in read_names(pipe, concepts, weights, ways, rng, progress):
        for together, (c, a) in heard.items():
            names.setdefault(together, []).append((c.mean(0), a.mean(0)))
            shifts[together] = shifts.get(together, 0) + (1 + how.eta) * (a - c).T @ c / len(c)
            sizes[together] = sizes.get(together, 0) + c.T @ c / len(c)
    deltas: dict[str, LowRank] = {}
    total = (1 + how.rece) * len(weights)
    progress("solve", 0, total)
    for k in range(1 + how.rece):
        for together, found in names.items():
            c, a = (torch.stack(one) for one in zip(*found, strict=True))
            stays = moments.get(together[0])
            if k:
                frozen = {layer: whole(weights[layer]) for layer in together}
                P = sizes[together] if stays is None else stays
                back = brought_back(changed_by(deltas, frozen), frozen, c.cpu(), P.double().cpu()).to(c)
                shifts[together] += (1 + how.eta) * (a - back).T @ back
                sizes[together] += back.T @ back
            S = sizes[together] if stays is None else sizes[together] + how.keep_weight * stays
            for layer in together:
                deltas[layer] = solve(whole_tensor(weights[layer]), shifts[together], S, (1 + k) * len(c))
                progress("solve", k * len(weights) + len(deltas), total)
    return {layer: deltas[layer] for layer in weights}
