"""SPEED: what is exactly 0, examples by hand, the least squares that it solves; the basis does not matter."""

from typing import Any

import pytest
import torch
from torch import Tensor

import unsee
from unsee.denoising.activations import inputs
from unsee.edits.edit import LowRank
from unsee.errors import InputError
from unsee.methods.columns import gram
from unsee.methods.speed import SPEED, Space, least_read, refined, solve, tokens

TINY: dict[str, Any] = {"preserve_words": 8, "neutral": ("cat", "house"), "context_words": 1}


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def row(*numbers: float) -> Tensor:
    return torch.tensor([numbers]).double()


def random(*size: int, seed: int = 1) -> Tensor:
    return torch.randn(*size, generator=rng(seed)).double()


def test_the_solution_of_three_by_three_matrices_is_that_derived_by_hand() -> None:
    # The name c = (1, 1, 0) should be read as a = (0, 0, 0), and r = (1, 0, 0) stays. The null space is spanned by the
    # other two channels, S_a - S_c = -c c^T, and there A = diag(1 + s, s). No token is common, so
    # D = -c c^T N A^-1 N^T: c times (0, -1 / (1 + s), 0). With s = 1 the name loses half of what can go.
    W, nothing = torch.eye(3).double(), row(0, 0, 0)
    how = SPEED(keep_weight=1.0, augment=0)
    D = solve(W, row(1, 1, 0), nothing, row(1, 0, 0), nothing, W, how, rng())
    torch.testing.assert_close(D, torch.tensor([[0, -0.5, 0], [0, -0.5, 0], [0, 0, 0]]).double())
    # Now k = (0, 1, 1) is common to all prompts and must stay too. Of changes along the second and third channel that
    # leave k, (0, t, -t), |D c - (a - c)|^2 + s |D|^2 for each row is (t + 1)^2 + 2 t^2: t = -1/3.
    D = solve(W, row(1, 1, 0), nothing, row(1, 0, 0), row(0, 1, 1), W, how, rng())
    torch.testing.assert_close(D, torch.tensor([[0, -1, 1], [0, -1, 1], [0, 0, 0]]).double() / 3)


def test_the_formula_of_the_authors_code() -> None:
    """As it is written there, where features are rows and no filter is on; the threshold lies between eigenvalues."""
    W, c, a, r, k = random(7, 10), random(3, 10, seed=2), random(3, 10, seed=3), random(6, 10, seed=4), random(2, 10)
    how = SPEED(augment=0, keep_weight=0.5, threshold=1e-9)
    one, S_tt, S_at = torch.eye(10).double(), c.T @ c / 3, a.T @ c / 3
    U, S, _ = torch.linalg.svd(r.T @ r / 6)
    P = U[:, how.threshold > S] @ U[:, how.threshold > S].T
    M, K2 = torch.linalg.inv(S_tt @ P + 0.5 * one), k.T
    fixed = M @ K2 @ torch.linalg.inv(K2.T @ P @ M @ K2) @ K2.T @ P
    torch.testing.assert_close(solve(W, c, a, r, k, one, how, rng()), W @ (S_at - S_tt) @ P @ (one - fixed) @ M)


@pytest.mark.parametrize("augment", [0, 10])
def test_what_is_retained_and_what_all_prompts_have_is_unchanged(augment: int) -> None:
    W, c, a, k = random(20, 20), random(4, 20, seed=2), random(4, 20, seed=3), random(2, 20, seed=4)
    r = random(8, 20, seed=5)
    how = SPEED(augment=augment, threshold=1e-9)
    one = torch.eye(20).double()
    D = solve(W, c, a, r, k, one, how, rng())
    E = W @ (a - c).T @ c / 4 @ torch.linalg.inv(one + c.T @ c / 4)
    kept = refined(E, r, least_read(W, one), augment, rng()) if augment else r
    assert len(kept) > 8 or not augment
    for still in (kept, k):
        torch.testing.assert_close(D @ still.T, torch.zeros(20, len(still)).double(), atol=1e-10, rtol=0)
    assert (D @ (c - c @ torch.linalg.pinv(kept) @ kept).T).norm() > 1


def test_the_filters_keep_the_words_found_by_hand() -> None:
    # E changes the three words by 3, 1 and 0, of mean 4/3: the first stays. Noise is along the third channel, with the
    # sign of the words' mean, and E does not see it: no noisy word is below the mean.
    E, words = torch.tensor([3.0, 1.0, 0.0]).double().diag(), torch.tensor([[1, 0, 0.1], [0, 1, 0], [0, 0, 1]]).double()
    found = refined(E, words, torch.tensor([0, 0, -1]).double(), 4, rng())
    assert found.shape == (5, 3)
    torch.testing.assert_close(found[:, :2], row(1, 0).repeat(5, 1))
    torch.testing.assert_close(found[1:, 2:], 0.1 + torch.randn(4, 1, generator=rng(), dtype=torch.double))


def test_the_least_read_direction_is_that_derived_by_hand() -> None:
    # |W v| is 3, 4 and 2 at the ends of the axes of the ellipsoid, which are 1, 2 and 2 long.
    W = torch.tensor([3.0, 2.0, 1.0]).double().diag()
    found = least_read(W, torch.tensor([1.0, 4.0, 4.0]).double().diag())
    torch.testing.assert_close(found.abs(), row(0, 0, 2)[0])


def test_no_change_that_spares_as_much_is_nearer() -> None:
    W, c, a, k = random(6, 9), random(3, 9, seed=2), random(3, 9, seed=3), random(2, 9, seed=4)
    r = random(4, 9, seed=5)
    how = SPEED(augment=0, keep_weight=0.3, threshold=1e-9)
    D = solve(W, c, a, r, k, torch.eye(9).double(), how, rng())
    free = torch.eye(9).double() - torch.linalg.pinv(torch.cat((r, k))) @ torch.cat((r, k))

    def objective(D: Tensor) -> Tensor:
        return ((W + D) @ c.T - W @ a.T).square().sum(0).mean() + 0.3 * D.square().sum()

    for seed in range(20):
        step = 1e-2 * random(6, 9, seed=seed) @ free
        assert objective(D + step) > objective(D)


def test_neither_the_basis_nor_the_scale_matters() -> None:
    W = {"one": random(7, 10), "other": random(9, 10, seed=2)}
    c, a, r, P, empty = (random(n, 10, seed=n) for n in (3, 4, 12, 40, 5))
    how = SPEED(threshold=0.3)

    def change(A: Tensor) -> dict[str, Tensor]:
        back = torch.linalg.inv(A)
        layers = {name: w @ back for name, w in W.items()}
        P_, r_, c_, a_, k_ = P @ A.T, r @ A.T, c @ A.T, a[:3] @ A.T, empty @ A.T
        space = Space.of(gram(layers, P_.T @ P_ / 40), r_)
        L, noise = space.L, rng()
        k, moment = tokens(k_, L), L.T @ P_.T @ P_ @ L / 40
        return {
            name: solve(space.matrix(w), c_ @ L, a_ @ L, r_ @ L, k, moment, how, noise) @ L.T @ A
            for name, w in layers.items()
        }

    expected = change(torch.eye(10).double())
    loud = torch.tensor([1.0, 300, 1, 1, 0.01, 1, 1, 1, 1, 1]).double().diag()
    for A in (random(10, 10, seed=9), loud, 100 * torch.eye(10).double()):
        for name, D in change(A).items():
            torch.testing.assert_close(D, expected[name], atol=1e-7, rtol=1e-6)
    assert min(D.norm() for D in expected.values()) > 0.1


def test_the_centres_of_tokens_are_those_found_by_hand() -> None:
    L = torch.eye(2).double()
    some = torch.tensor([[9.0, 9], [0, 0.1], [0, -0.1], [5, 0], [0, 5], [0, 0]]).double()  # zeros are hidden padding
    found = tokens(some, L)
    assert found[0].tolist() == [9, 9]
    assert sorted(found[1:].round(decimals=6).tolist()) == [[0, 0], [0, 5], [5, 0]]
    assert tokens(some[:3], L).tolist() == some[:3].tolist()


def test_layers_read_the_empty_prompt_nearly_as_before(shipped: Any) -> None:
    edit = SPEED(preserve_words=48)(shipped, "church")
    for name, D in edit.deltas.items():
        assert not isinstance(D, LowRank)
        layer = name.removeprefix("unet.").removesuffix(".weight")
        empty, church = inputs(shipped, ["", "church"], [layer])[layer]
        W = shipped.unet.get_parameter(f"{layer}.weight")
        share = [float((x @ D.T).norm() / (x @ W.T).norm()) for x in (empty[:1], empty, church)]
        assert share[0] < 1e-4
        assert share[1] < 0.25 * share[2]


def test_what_speed_cannot_do_is_refused(pipe: Any) -> None:
    with pytest.raises(InputError, match="speed moves names, so it cannot erase 'crown' from 'cowboy'"):
        unsee.SPEED(**TINY)(pipe, unsee.Concept("crown", from_="cowboy"))
    with pytest.raises(InputError, match="speed uses no image"):
        SPEED(**TINY)(pipe, unsee.Concept("church", image="church.png"))
    with pytest.raises(InputError, match="^keep_weight: "):
        SPEED(keep_weight=0)
