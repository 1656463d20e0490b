"""RECE's loop: what brings a concept back, by hand; and that it is erased too."""

from typing import Any

import pytest
import torch
from torch import Tensor

import unsee
from tests.test_balance import QUICK, problem
from unsee.edits.edit import LowRank
from unsee.methods.balance import Balance, solve
from unsee.methods.closed_form import changed_by
from unsee.methods.columns import gram
from unsee.methods.rece import brought_back

I2 = torch.eye(2).double()
C = torch.tensor([[1.0, 0.0]]).double()


@pytest.mark.parametrize(("mu", "expected"), [(0.0, 2.0), (0.25, 1.0)])
def test_the_name_that_comes_back_is_that_derived_by_hand(mu: float, expected: float) -> None:
    # The edit halves the first channel, so twice as much of it reads as before: W (2, 0) = W0 (1, 0). With s = 2 and
    # mu / 2 for each direction, c' = (0.5 / 2) / (0.25 / 2 + mu / 2), which is 1 for mu = 0.25.
    W = torch.diag(torch.tensor([0.5, 1.0])).double()
    found = brought_back({"w": W}, {"w": I2}, C, I2, mu)
    torch.testing.assert_close(found, expected * C, atol=1e-5, rtol=0)


def test_for_frozen_matrices_the_name_itself_comes_back() -> None:
    it, W = problem(features=12)
    torch.testing.assert_close(brought_back({"w": W}, {"w": W}, it.c, it.P, 0.0), it.c, rtol=1e-3, atol=1e-3)


def test_basis_and_scale_of_the_text_features_do_not_matter() -> None:
    it, W = problem()
    T = torch.randn(24, 24, generator=torch.Generator().manual_seed(2)).double()
    back = torch.linalg.inv(T)
    V = W + torch.ones_like(W)
    one = brought_back({"w": V}, {"w": W}, it.c, it.P)
    other = brought_back({"w": V @ back}, {"w": W @ back}, it.c @ T.T, T @ it.P @ T.T)
    torch.testing.assert_close(other @ back.T, one, rtol=1e-4, atol=1e-4)


def test_what_is_found_is_one_more_name() -> None:
    it, _ = problem()
    more = it.joined(10 * it.c, it.a)
    assert torch.equal(more.c, torch.cat([it.c[:2], 10 * it.c[:2], it.c[2:], 10 * it.c[2:]]))
    assert torch.equal(more.a, torch.cat([it.a[:2], it.a[:2], it.a[2:], it.a[2:]]))
    torch.testing.assert_close(more.C, it.C + 50 * it.c.T @ it.c)


def test_what_brings_a_name_back_is_erased() -> None:
    it, W = problem(words=3)
    G, how = gram({"w": W}, it.P), Balance(strength=1.0)

    def edited(one: Any) -> Tensor:
        shift, read, *_ = solve(one, G, how)
        return W + W @ shift @ read

    V = edited(it)
    c = brought_back({"w": V}, {"w": W}, it.c, it.P)
    again = edited(it.joined(c, it.a))
    name = (it.c @ W.T).norm()
    assert ((c @ V.T) - it.c @ W.T).norm() < 0.5 * name  # it reads as the name did
    assert ((c @ again.T) - it.c @ W.T).norm() > 0.8 * name  # and no longer


@pytest.mark.parametrize("method", [unsee.Balance, unsee.UCE, unsee.SPEED, unsee.OCE])
def test_every_closed_form_has_the_loop(pipe: Any, method: Any) -> None:
    once, more = (method(**QUICK, rece=rounds)(pipe, "church") for rounds in (0, 2))
    name = next(iter(once.deltas))
    assert more.card.settings["rece"] == 2
    one, other = (
        changed_by({name: edit.deltas[name]}, {name: pipe.unet.get_parameter(name.removeprefix("unet.")).double()})
        for edit in (once, more)
    )
    assert not torch.allclose(one[name], other[name])
    if isinstance(once.deltas[name], LowRank):
        assert more.deltas[name].up.shape[1] == 3 * once.deltas[name].up.shape[1]
