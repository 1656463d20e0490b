r"""OCE: rotate what layers put out, so that a name's part of it points away; solved, not trained.

"Orthogonal Concept Erasure for Diffusion Models", arXiv:2605.28902. The authors' code is HansSunY/OCE, oce.py. For
every matrix W (out, features) that makes values of the prompt:

    W  <-  Q W,      Q  =  argmax <Q, M> over rotations  =  U V^T   of the singular value decomposition M = U S V^T
    M   =  - s_e R (I - R*)  +  s_g W C_g W^T  +  s_n sum_k (W k)(W k)^T  +  lambda I

R projects on the span of W c for the names c that go, R* on that of W a for what takes their place. k are words that
must stay, C_g is E[p p^T] over tokens of any text. This is the orthogonal Procrustes problem (Schoenemann, 1966): the
first term asks Q to turn over what a name has beside what takes its place, the others to be the identity. A direction
turns where s_e is more than what the others weigh there. Q^T Q = I: W^T W, all lengths and all angles stay, and no
more than signs and directions of values change. The edit is one dense difference (Q - I) W for each matrix.

Departures from the paper
- R and R* are of unit scale, and W C_g W^T grows with W^2: in the authors' commands s_e is between 500 and 2000, with
  other s_g and s_n for each kind of concept. Here each sum but the first is divided by its trace, in each layer. So
  weights are shares of what a layer puts out, whatever the scale of W and of the text features.
- lambda W W^T, which is in the code and not in the paper, depends on the basis in which a text encoder writes. Here it
  is lambda I over the number of outputs, which also makes Q unique where the rest of M has no full rank.
- Where det(U V^T) < 0 the code flips the last column of Q, whose result is no optimum. The rotation nearest to M has
  the last column of U flipped, that of the least singular value (Kabsch, 1976). M is in float64.
- c and a are means over all tokens that a name changes (columns.py), not the last token of a name. With `context_words`
  each name has a second c, beside other words: columns from contexts and from end tokens, as in TRCE's first stage
  (arXiv:2503.07389). The code has five prompts for each name where `expand_prompts` is set.
- Without an anchor, a is what random words say in the name's place, of each name its own, as in UCE; the code's is " ".
- k are the known words of columns.py, and C_g is from random prompts, not from captions of COCO.
- An orthonormal basis is cut at directions that rounding alone tells apart (RANK).
`OCE.presets["paper"]` takes back the templates, the context words and the neutral words.

The names and what takes their places span at most as many directions as a layer has outputs. As they come near to that
number, R (I - R*) falls to 0 and nothing turns: on the miniature, whose layers have 64 and 128, from between 20 names
and 60.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from unsee.errors import one_line
from unsee.methods.closed_form import ClosedForm, Solution, whole
from unsee.methods.columns import Columns
from unsee.methods.presets import NotNegative, Positive
from unsee.models.model import Pipeline
from unsee.progress import Progress

RANK = 1e-6
"""Singular values of unit columns below this share of the largest are rounding: text features are in float32."""


@one_line
@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class OCE(ClosedForm):
    """Erase one or many concepts with OCE; the formula is at the top of its file.

    erase_weight  s_e: how strongly names turn
    keep_weight   s_g: how strongly any other text stays, a share of what layers put out
    word_weight   s_n: how strongly known words stay, a share of it too
    damping       lambda: how strongly all directions stay alike

    The other settings are those of all closed forms, `ClosedForm`. C_g is that of the words that must stay. Where
    the model's card lists no words, they are the known words too.

    Calling it with a pipeline and one or more concepts returns an Edit and leaves the pipeline as it was.
    Raises InputError on a setting that is unknown or out of range.

        >>> edit = unsee.OCE()(pipe, ["church", "castle", "fox"])
        >>> path = edit.save("three.safetensors")
    """

    erase_weight: Positive = 1.0
    keep_weight: NotNegative = 0.5
    word_weight: NotNegative = 0.3
    damping: NotNegative = 1.5

    name: ClassVar[str] = "oce"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {"context_words": 0, "templates": ("{}",), "neutral": ()},
    }

    def solved(
        self,
        pipe: Pipeline,
        found: Sequence[Columns],
        weights: Mapping[str, Tensor],
        rng: torch.Generator,
        progress: Progress,
    ) -> Solution:
        """(Q - I) W of each layer."""
        deltas: dict[str, Tensor] = {}
        for one in found:
            for layer in one.layers:
                W = whole(weights[layer])
                deltas[layer] = ((rotation(W, one, self) - torch.eye(len(W))) @ W).float()
        return Solution(deltas, {})


def rotation(W: Tensor, it: Columns, how: OCE) -> Tensor:
    """Q (out, out), float64, with Q^T Q = I and det Q = 1.

    W   (out, features)
    it  what the layers read
    """
    one, R, guide = torch.eye(len(W), dtype=torch.double), projector(it.c @ W.T), projector(it.a @ W.T)
    known = it.x @ W.T
    M = how.keep_weight * share(W @ it.P @ W.T) + how.word_weight * share(known.T @ known) + how.damping * share(one)
    return nearest(M - how.erase_weight * R @ (one - guide))


def projector(y: Tensor) -> Tensor:
    """(out, out) onto the span of the rows of y (n, out)."""
    u, s, _ = torch.linalg.svd(nn.functional.normalize(y).T, full_matrices=False)
    u = u[:, s > RANK * s[0]]
    P: Tensor = u @ u.T
    return P


def share(A: Tensor) -> Tensor:
    """A in the unit of its trace; 0 stays 0."""
    return A / A.trace().clamp(min=1e-300)


def nearest(M: Tensor) -> Tensor:
    """The rotation Q that maximises <Q, M>."""
    U, _, V = torch.linalg.svd(M)
    if torch.linalg.det(U) * torch.linalg.det(V) < 0:
        U = torch.cat((U[:, :-1], -U[:, -1:]), 1)
    Q: Tensor = U @ V
    return Q
