r"""SPEED: change only what lies in the null space of what must stay; solved, not trained.

"SPEED: Scalable, Precise, and Efficient Concept Erasure for Diffusion Models", arXiv:2503.07392. The formula is that of
the authors' code, Ouxiang-Li/SPEED, train_erase_null.py. For every matrix W (out, features) that makes values:

    W  <-  W + W (S_a - S_c) N (1 - A^-1 K (K^T A^-1 K)^-1 K^T) A^-1 N^T,      A = N^T S_c N + s
    S_c = mean c c^T,   S_a = mean a c^T,   N: eigenvectors of R = mean r r^T whose eigenvalues are below `threshold`
    K = N^T k,   k: the begin token and three centres of the other tokens of the empty prompt (k-means)

c are names that go, a what takes their places, r what must stay. Of all changes that are exactly 0 on the other
eigenvectors of R and on k (invariant equality constraints), this one is nearest to the least squares of
|(W + D) c - W a|^2 + s |D|^2. R counts for each W

    those r whose change by E = W (S_a - S_c) (1 + S_c)^-1 is above the mean          influence-based prior filtering
    r + z v, z normal, v the direction that W reads least, under the same filter      directed prior augmentation

Departures from the paper
- The authors' numbers, 1, s and `threshold`, have the unit of a channel of the text features and mean something else
  in another basis or scale. Here lengths are those of what all layers put out, |x|^2 = x^T G x (columns.gram), in the
  unit in which the mean eigenvalue of R before the filters is 1: features are L^T x with G = L L^T. A LayerNorm writes
  the features of CLIP, for which the paper's numbers are, with about that size. So the result is the same function in
  any basis.
- v is the unit vector along which |W v| is least in the code, which has no meaning apart from a basis. Here it is that
  of the ellipsoid v^T E[p p^T]^-1 v = 1 over tokens p of what must stay: noise has the size that text has there. Its
  sign, which random z need, is that of the mean r.
- c, a and r are means over tokens (columns.py), not last tokens of names. r are known words by themselves and beside
  others, and all words of the preservation prompts in `templates`. A name has a second c beside other words
  (`context_words`): columns from contexts and from end tokens, as in TRCE's first stage (arXiv:2503.07389).
- Without an anchor, a is what random words say in the name's place, as in UCE; the paper's is the empty prompt.
- s is 0.005 by default. The authors have 1 for one concept and 0.05 for ten celebrities: S_c is a mean over names, so
  it falls with their number beside s. On the miniature 0.005 suits one object and twenty; 0.05 leaves most of twenty.
- k-means starts at the tokens farthest apart, not at random ones. The pseudoinverse stands for (K^T A^-1 K)^-1, where
  the null space knows no difference between two k. The authors' lambda I there, 0 by default, is left out.
`SPEED.presets["paper"]` takes back s, the templates, the context words and the neutral words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor

from unsee.denoising.activations import inputs, means
from unsee.errors import one_line
from unsee.methods.closed_form import ClosedForm, Solution, whole
from unsee.methods.columns import Columns, gram
from unsee.methods.presets import NotNegative, Number, Positive
from unsee.models.model import Pipeline
from unsee.progress import Progress

CENTRES = 3
"""Number of centres of the empty prompt's tokens behind the first, as in the authors' code."""


@one_line
@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class SPEED(ClosedForm):
    """Erase one or many concepts with SPEED; the formula is at the top of its file.

    threshold     the share of the mean eigenvalue of R below which a direction may change
    keep_weight   s: how strictly the rest of the null space stays, in the same unit
    augment       number of noisy copies of each r; 0: neither filter nor noise

    The other settings are those of all closed forms, `ClosedForm`.

    Calling it with a pipeline and one or more concepts returns an Edit and leaves the pipeline as it was.
    Raises InputError on a setting that is unknown or out of range.

        >>> edit = unsee.SPEED()(pipe, ["church", "castle", "fox"])
        >>> path = edit.save("three.safetensors")
    """

    threshold: NotNegative = 0.1
    keep_weight: Positive = 0.005
    augment: Number = 10

    name: ClassVar[str] = "speed"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {"keep_weight": 1.0, "context_words": 0, "templates": ("{}",), "neutral": ()},
    }

    def solved(
        self,
        pipe: Pipeline,
        found: Sequence[Columns],
        weights: Mapping[str, Tensor],
        rng: torch.Generator,
        progress: Progress,
    ) -> Solution:
        """D of each layer."""
        heads = [one.layers[0] for one in found]
        stay = [way.format(word) for word, way in zip(found[0].kept, self.templates * len(found[0].kept))]
        more = means(pipe, stay, heads, progress=progress) if stay else {}
        empty = inputs(pipe, [""], heads)
        deltas: dict[str, Tensor] = {}
        for one in found:
            layers = {layer: whole(weights[layer]) for layer in one.layers}
            first = one.layers[0]
            r = torch.cat([one.x, *(x[first].double().cpu() for x in [more] if more)])
            space = Space.of(gram(layers, one.P), r)
            L = space.L
            rest = tokens(empty[first].flatten(0, -2).double().cpu(), L)
            for layer, W in layers.items():
                D = solve(space.matrix(W), one.c @ L, one.a @ L, r @ L, rest, L.T @ one.P @ L, self, rng)
                deltas[layer] = (D @ L.T).float()
        return Solution(deltas, {})


@dataclass(frozen=True, config=ConfigDict(arbitrary_types_allowed=True))
class Space:
    """Coordinates L^T x (k,) of features x, whose lengths are those of what layers put out; see the top of this file.

    L     (features, k), L L^T = G up to a scale
    back  (features, k), L^T back = 1: coordinates to features that have them
    """

    L: Tensor
    back: Tensor

    @classmethod
    def of(cls, G: Tensor, r: Tensor) -> Self:
        """The coordinates in which rows of r have a mean square of 1 for each coordinate."""
        scale = G.diagonal().clamp(min=1e-30 * float(G.trace())).rsqrt()  # a channel may be a thousand times another
        size, u = torch.linalg.eigh(scale[:, None] * G * scale)
        size, u = size[size > 1e-10 * size[-1]], u[:, size > 1e-10 * size[-1]]
        L, back = u * size.sqrt() / scale[:, None], scale[:, None] * u / size.sqrt()
        unit = (r @ L).square().mean().sqrt()
        return cls(L / unit, back * unit)

    def matrix(self, W: Tensor) -> Tensor:
        """(out, k) what W (out, features), a part of G, makes of coordinates."""
        return W @ self.back


def tokens(x: Tensor, L: Tensor) -> Tensor:
    """(centres, k) coordinates of the first of some tokens x (n, features) and of CENTRES clusters of the others."""
    x = x[x.any(-1)] @ L
    first, rest = x[:1], x[1:]
    if len(rest) <= CENTRES:
        return x
    centres = rest[(rest - first).norm(dim=-1).argmax()][None]
    while len(centres) < CENTRES:
        centres = torch.cat((centres, rest[torch.cdist(rest, centres).amin(1).argmax()][None]))
    for _ in range(100):
        own = torch.cdist(rest, centres).argmin(1) == torch.arange(CENTRES)[:, None]
        centres = torch.stack([rest[mask].mean(0) if mask.any() else c for mask, c in zip(own, centres, strict=True)])
    return torch.cat((first, centres))


def solve(W: Tensor, c: Tensor, a: Tensor, r: Tensor, k: Tensor, P: Tensor, how: SPEED, rng: torch.Generator) -> Tensor:
    """D (out, features), float64, in coordinates in which 1 is the size of what must stay; c, a, r and k are rows.

    c, a  (n, features) names, and what takes their places
    r     (words, features) what must stay
    k     (tokens, features) what every prompt has
    P     (features, features) E[p p^T] over tokens of what must stay
    """
    S_c, move = c.T @ c / len(c), (a - c).T @ c / len(c)
    if how.augment:
        E = W @ move @ torch.linalg.inv(torch.eye(len(S_c)).double() + S_c)
        r = refined(E, r, least_read(W, P), how.augment, rng)
    size, u = torch.linalg.eigh(r.T @ r / len(r))
    N = u[:, size < how.threshold]
    K = N.T @ k.T
    inverse = torch.linalg.inv(N.T @ S_c @ N + how.keep_weight * torch.eye(N.shape[1]).double())
    onto = K @ torch.linalg.pinv(K.T @ inverse @ K, rtol=1e-10, hermitian=True) @ K.T
    D: Tensor = W @ move @ N @ (inverse - inverse @ onto @ inverse) @ N.T
    return D


def least_read(W: Tensor, P: Tensor) -> Tensor:
    """The v (features,) with the least |W v| of the ellipsoid v^T P^-1 v = 1."""
    size, u = torch.linalg.eigh(P)
    root = u * size.clamp(min=0).sqrt()
    v: Tensor = root @ torch.linalg.svd(W @ root, full_matrices=False)[2][-1]
    return v


def refined(E: Tensor, r: Tensor, v: Tensor, augment: int, rng: torch.Generator) -> Tensor:
    """Rows of r (words, features) that E changes by more than the mean, and `augment` times as many with noise."""

    def influenced(r: Tensor) -> Tensor:
        change = (r @ E.T).norm(dim=-1)
        return r[change >= change.mean()]

    r = influenced(r)
    v = v * torch.where(r.mean(0) @ v < 0, -1.0, 1.0)
    z = torch.randn(augment * len(r), 1, generator=rng, dtype=torch.double)
    return torch.cat((r, influenced(r.repeat(augment, 1) + z * v)))
