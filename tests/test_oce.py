"""OCE: exact invariants of a rotation, an example by hand, and the basis of text features, which does not matter."""

from typing import Any

import pytest
import torch
from torch import Tensor

import unsee
from unsee.errors import InputError
from unsee.methods.columns import Columns
from unsee.methods.oce import OCE, nearest, projector, rotation

TINY: dict[str, Any] = {"preserve_words": 8, "neutral": ("cat", "house"), "context_words": 1}


def problem(names: int = 3, features: int = 12, A: Tensor | None = None) -> Columns:
    """What some layer reads, and what takes the names' places; A: the basis in which text features are written."""
    rng = torch.Generator().manual_seed(1)
    A = torch.eye(features).double() if A is None else A
    c, a, x, p = (torch.randn(n, features, generator=rng).double() @ A.T for n in (2 * names, 1, 20, 50))
    empty = torch.zeros(0)
    return Columns(("layer",), c, a, empty, p.T @ p / len(p), ("w",) * 20, x, empty, ())


def matrix(out: int = 9, features: int = 12) -> Tensor:
    return torch.randn(out, features, generator=torch.Generator().manual_seed(2)).double()


def test_the_rotation_of_two_by_two_matrices_is_that_derived_by_hand() -> None:
    # The name is read as (1, 0), and (0, 1) takes its place: R (I - R*) = diag(1, 0). Of all tokens and known words a
    # share of 1/4 and of 0 lies along the name, so the code's weights give the name -1 + 0.5 / 4 + 1.5 / 2 < 0, and
    # M = diag(-1/8, 3/8 + 0.3 + 3/4). Its best orthogonal matrix, diag(-1, 1), is no rotation, and of least worth is
    # the name's direction: among rotations the identity is best. With a third output, which reads nothing, the name
    # turns over, and that output with it.
    it = Columns(
        ("layer",), torch.tensor([[1.0, 0.0]]).double(), torch.tensor([[0.0, 1.0]]).double(), torch.zeros(0),
        torch.tensor([1.0, 3.0]).double().diag(), ("w",), torch.tensor([[0.0, 2.0]]).double(), torch.zeros(0), (),
    )  # fmt: skip
    W = torch.eye(2).double()
    torch.testing.assert_close(rotation(W, it, OCE()), W)
    wider = torch.cat((W, torch.zeros(1, 2).double()))
    turned = torch.tensor([-1.0, 1.0, -1.0]).double().diag()
    torch.testing.assert_close(rotation(wider, it, OCE(damping=0.3)), turned)


def test_a_rotation_is_the_nearest_by_hand() -> None:
    # <Q, M> over rotations of the plane by t is 3 sin t + cos t (-2 + 1): M = (-2, -3; 0, 1), since Q = (c, -s; s, c).
    # It is greatest where tan t = 3 / -1.
    Q = nearest(torch.tensor([[-2.0, -3.0], [0.0, 1.0]]).double())
    expected = torch.tensor([[-1.0, -3.0], [3.0, -1.0]]).double() / 10**0.5
    torch.testing.assert_close(Q, expected)
    flipped = torch.tensor([[-1.0, 0.0], [0.0, 2.0]]).double()  # the code flips the last column of diag(-1, 1)
    torch.testing.assert_close(nearest(flipped), torch.eye(2).double())


@pytest.mark.parametrize("names", [1, 3, 8])
def test_lengths_and_angles_stay(names: int) -> None:
    it = problem(names)
    W = matrix()
    Q = rotation(W, it, OCE())
    torch.testing.assert_close(Q.T @ Q, torch.eye(9).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close((Q @ W).T @ (Q @ W), W.T @ W, atol=1e-12, rtol=1e-12)
    assert torch.linalg.det(Q).item() == pytest.approx(1)
    assert (Q - torch.eye(9)).norm() > 1


def test_no_small_turn_is_better() -> None:
    rng = torch.Generator().manual_seed(3)
    M = torch.randn(6, 6, generator=rng).double()
    Q = nearest(M)
    for _ in range(50):
        turn = 0.1 * torch.randn(6, 6, generator=rng).double()
        assert (torch.linalg.matrix_exp(turn - turn.T) @ Q * M).sum() < (Q * M).sum()


def test_neither_the_basis_nor_the_scale_matters() -> None:
    here, W = problem(), matrix()
    expected = rotation(W, here, OCE())
    A = torch.randn(12, 12, generator=torch.Generator().manual_seed(4)).double()
    for basis in (A, 100 * A):
        there = problem(A=basis)
        torch.testing.assert_close(rotation(W @ torch.linalg.inv(basis), there, OCE()), expected)
    torch.testing.assert_close(rotation(100 * W, here, OCE()), expected)


def test_a_layer_that_tells_no_names_from_others_turns_nothing_else() -> None:
    y = torch.randn(5, 4, generator=torch.Generator().manual_seed(5)).double()
    torch.testing.assert_close(projector(y), torch.eye(4).double())
    torch.testing.assert_close(projector(y[:1].repeat(3, 1)), y[:1].T @ y[:1] / (y[:1] ** 2).sum())


def test_the_stored_edit_keeps_the_gram_matrix(pipe: Any) -> None:
    edit = OCE(**TINY)(pipe, ["church", "dog"])
    for name, delta in edit.deltas.items():
        assert isinstance(delta, Tensor)
        W = pipe.unet.get_parameter(name.removeprefix("unet.")).detach()
        torch.testing.assert_close(
            (W + delta).T @ (W + delta), W.T @ W, atol=1e-5 * float((W.T @ W).abs().max()), rtol=0
        )
    assert all(name.endswith("to_v.weight") for name in edit.deltas)


def test_what_oce_cannot_do_is_refused(pipe: Any) -> None:
    with pytest.raises(InputError, match="oce moves names, so it cannot erase 'crown' from 'cowboy'"):
        unsee.OCE(**TINY)(pipe, unsee.Concept("crown", from_="cowboy"))
    with pytest.raises(InputError, match="oce uses no image"):
        OCE(**TINY)(pipe, unsee.Concept("church", image="church.png"))
    with pytest.raises(InputError, match="^damping: "):
        OCE(damping=-1)
