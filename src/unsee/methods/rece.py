r"""RECE's loop: solve for what brings a concept back through the edited matrices, erase that too, and again.

Gong, Chen, Wei, Chen, Jiang: "Reliable and Efficient Concept Erasure of Text-to-Image Diffusion Models", ECCV 2024,
arXiv:2407.12383. W0 are the frozen matrices that change, W the edited ones, c what they read in a name:

    c'  =  argmin  sum |W c' - W0 c|^2 / s  +  mu |c'|^2
        =  (sum W^T W / s  +  mu)^-1  (sum W^T W0 / s)  c

c' is then one more name to be led to what takes the place of c, and all is solved anew.

Departures from the paper
- s is the mean square of what a matrix puts out for text, 1 in the paper; and |c'|^2 is measured by the text features,
  c'^T P^-1 c' with P = E[p p^T] over tokens of what must stay. So mu is a share, and the result does not depend on the
  basis and scale in which a text encoder writes.
- All names, found ones too, are solved together from W0. The paper edits W again, which weakens what was erased before.
- c is a mean over the tokens that a name changes (columns.py), once by itself and once beside other words.
- The authors keep the round that a detector of pictures likes best. Here the number of rounds is a setting.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from unsee.fit.optimizers import root

MU = 0.01
"""mu, as a share of the mean over directions of what the frozen matrices weigh."""


def brought_back(W: Mapping[str, Tensor], W0: Mapping[str, Tensor], c: Tensor, P: Tensor, mu: float = MU) -> Tensor:
    """c' (n, features), float64, of which the edited matrices make what the frozen ones make of c.

    W, W0  (out, features) by their layers, edited and frozen, which all read one tensor
    c      (n, features) what they read in names
    P      (features, features) E[p p^T] over tokens of what must stay
    """
    R = root(P)
    scale = {layer: float((w @ P * w).sum()) for layer, w in W0.items()}
    edited = {layer: W[layer] @ R / scale[layer] ** 0.5 for layer in W0}  # of z, with c' = R z and |z|^2 = c'^T P^-1 c'
    met = sum((w.T @ w for w in edited.values()), torch.zeros_like(P))
    goal = sum((w.T @ (W0[layer] @ c.T) / scale[layer] ** 0.5 for layer, w in edited.items()), torch.zeros_like(c.T))
    ridge = mu * len(W0) / len(P) * torch.eye(len(P), dtype=P.dtype)
    found: Tensor = (R @ torch.linalg.solve(met + ridge, goal)).T
    return found
