"""Balance: by hand, its two promises, and what must not matter to it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import unsee
from unsee.denoising.record import conditions
from unsee.denoising.replay import replay
from unsee.errors import InputError
from unsee.methods.alike import taken_along
from unsee.methods.balance import Balance, solve
from unsee.methods.closed_form import values
from unsee.methods.columns import CALLED, Columns, gram
from unsee.models.weights import text_input_weights

QUICK: dict[str, Any] = {
    "context_words": 2,
    "preserve_words": 8,
    "neutral": ("cat", "house"),
    "templates": ("{}", "a {}"),
}


def problem(names: int = 2, words: int = 6, features: int = 24, out: int = 16) -> tuple[Columns, Tensor]:
    """Random columns, and a matrix that reads them."""
    rng = torch.Generator().manual_seed(1)
    c, a, x, p = (torch.randn(n, features, generator=rng).double() for n in (2 * names, 2 * names, words * 3, 200))
    W = torch.randn(out, features, generator=rng).double()
    moment, slack = p.T @ p / len(p), torch.ones(len(x)).double()
    return Columns(("w",), c, a, c.T @ c, moment, tuple("abcdefgh"[:words]), x, slack), W


def lost(it: Columns, W: Tensor, shift: Tensor, read: Tensor) -> Tensor:
    """The share of what W reads in each word by itself that is lost, without the code that it tests."""
    alone = it.x[: len(it.words)]
    own = (alone - alone.mean(0)) @ W.T
    return (alone @ read.T @ shift.T @ W.T).norm(dim=1) / own.norm(dim=1)


def test_the_solution_of_two_by_two_matrices_is_that_derived_by_hand() -> None:
    # One name c = (1, 0) goes to a = (0, 1); the only word is p = (0, 1), which nothing that reads c alone can hurt. So
    # B c = strength (a - c) = (-1, 1), B p = 0, and B is (-1, 1) (1, 0)^T.
    c, a = torch.tensor([[1.0, 0.0]] * 2).double(), torch.tensor([[0.0, 1.0]] * 2).double()
    x = torch.tensor([[0.0, 1.0], [0.0, -1.0]] * len(CALLED)).double()
    eye, slack = torch.eye(2).double(), torch.ones(len(x)).double()
    it = Columns(("w",), c, a, eye, eye, ("p", "q"), x, slack)
    shift, read, losses, _ = solve(it, torch.eye(2).double(), Balance(strength=1.0))
    torch.testing.assert_close(shift @ read @ c[0], a[0] - c[0])
    torch.testing.assert_close(shift @ read, torch.tensor([[-1.0, 0.0], [1.0, 0.0]]).double(), atol=1e-6, rtol=0)
    assert losses.max() < 1e-6


def test_every_name_moves_all_the_way_and_no_word_loses_more_than_the_limit() -> None:
    it, W = problem(words=3)
    shift, read, *_ = solve(it, gram({"w": W}, it.P), Balance(strength=1.0, limit=0.3, rounds=400))
    B = shift @ read
    moved, whole = it.c @ B.T @ W.T, (it.a - it.c) @ W.T
    torch.testing.assert_close((moved * whole).sum(1), (whole * whole).sum(1), rtol=0.02, atol=0)
    assert lost(it, W, shift, read).max() < 0.32
    free, reads, *_ = solve(it, gram({"w": W}, it.P), Balance(strength=1.0, limit=100.0))
    assert lost(it, W, free, reads).max() > 0.5  # the limit did it


def test_what_a_user_names_loses_half_as_much() -> None:
    it, W = problem(words=3)
    G, how = gram({"w": W}, it.P), Balance(strength=1.0, limit=0.3, rounds=400)
    worst = int(lost(it, W, *solve(it, G, how)[:2]).argmax())
    kept = lost(it, W, *solve(it.tightened({it.words[worst]: 0.5}), G, how)[:2])
    assert kept[worst] < 0.2


def test_where_the_limit_cannot_hold_strength_falls_as_the_limit_grows() -> None:
    it, W = problem(names=10)
    G, how = gram({"w": W}, it.P), Balance(limit=0.02)

    def along(shift: Tensor, read: Tensor) -> Tensor:
        moved, whole = it.c @ (shift @ read).T @ W.T, (it.a - it.c) @ W.T
        return (moved * whole).sum(1) / (whole * whole).sum(1)

    shift, read, losses, strength = solve(it, G, how)
    fell = along(shift, read).median()
    assert fell < 1.2  # of a strength of 1.4
    assert losses.max() > 0.02
    shift, read, _, held = solve(it, G, how, torch.full_like(strength, 1.4))  # what a solution came to before holds
    assert (held == 1.4).all()
    assert along(shift, read).median() > 1.1 * fell


@pytest.mark.parametrize("kind", ["rotation", "log-normal", "outliers", "all"])
def test_the_basis_and_scale_of_text_features_do_not_matter(kind: str) -> None:
    it, W = problem()
    rng = torch.Generator().manual_seed(3)
    n = it.c.shape[1]
    spread = torch.randn(n, generator=rng).exp().double()
    big = torch.ones(n).double()
    big[:2] = torch.tensor([30.0, 25.0]).double()
    turn = torch.linalg.qr(torch.randn(n, n, generator=rng).double())[0]
    T = {"rotation": turn, "log-normal": spread.diag(), "outliers": big.diag(), "all": turn @ (spread * big).diag()}[
        kind
    ]
    there = replace(it, c=it.c @ T.T, a=it.a @ T.T, C=T @ it.C @ T.T, P=T @ it.P @ T.T, x=it.x @ T.T)
    V = W @ torch.linalg.inv(T)
    one, other = solve(it, gram({"w": W}, it.P), Balance()), solve(there, gram({"w": V}, there.P), Balance())
    torch.testing.assert_close(V @ other[0] @ other[1] @ T, W @ one[0] @ one[1], rtol=1e-4, atol=1e-4)


def test_only_values_change_not_keys(pipe: Any) -> None:
    edit = Balance(**QUICK)(pipe, "church")
    assert edit.deltas
    assert all(".to_v." in name for name in edit.deltas)
    assert set(values(text_input_weights(pipe.unet))) == {name.removeprefix("unet.") for name in edit.deltas}


def test_the_words_that_it_hurts_most_are_on_the_card(pipe: Any) -> None:
    edit = Balance(**QUICK)(pipe, unsee.Concept("church", keep="castle"))
    assert 0 < len(edit.card.hurt) <= 16
    assert list(edit.card.hurt.values()) == sorted(edit.card.hurt.values(), reverse=True)
    assert not {"church", "chapel", "kirche"} & set(edit.card.hurt)


def test_known_words_are_those_of_the_model_card_or_else_of_the_tokenizer(pipe: Any) -> None:
    model = unsee.Model.of(pipe)
    bare = replace(model, card=model.card.model_copy(update={"words": None}))
    listed, others = (Balance(**QUICK)(one, "church").card.hurt for one in (model, bare))
    assert set(listed) - set(others)
    assert set(others) <= {*QUICK["neutral"], *Balance(**QUICK)(bare, "church").card.kept}


def test_a_card_may_list_a_word_without_details(pipe: Any, tmp_path: Path) -> None:
    words = tmp_path / "words.yaml"
    model = unsee.Model.of(pipe)
    said = replace(model, card=model.card.model_copy(update={"words": str(words)}))
    words.write_text("objects: {castle: {group: place}, mosque: }\nstyles: [ink]\nmemorised: [the great wave]\n")
    assert set(Balance(**QUICK)(said, "church").card.hurt) == {"castle", "mosque", "ink style", "the great wave"}
    words.write_text("objects: {castle: {size: large}}")
    with pytest.raises(InputError, match="size"):
        Balance(**QUICK)(said, "church")


def test_concepts_that_are_no_names_are_refused_in_one_line(pipe: Any) -> None:
    with pytest.raises(InputError, match="balance moves names, so it cannot erase 'hat' from 'cowboy'"):
        Balance(**QUICK)(pipe, unsee.Concept("hat", from_="cowboy"))


def test_a_word_whose_prediction_goes_along_with_the_name_loses_less(shipped: Any) -> None:
    plain, looked = (Balance(**QUICK, looks=looks)(shipped, "church") for looks in (0, 1))
    assert not plain.card.alike
    worst = list(looked.card.alike)[:4]
    assert "mosque" in worst
    words = [*worst, "dog", "car", "pizza"]
    before, after = (
        taken_along(shipped, ["church"], words, values_of(edit, shipped), noises=1)[:4] for edit in (plain, looked)
    )
    assert (after < 0.8 * before).all()


def test_the_rows_that_are_compared_are_foretold(shipped: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = []

    def counted(pipe: Any, names: list[str], words: list[str], *args: Any, noises: int, **options: Any) -> Tensor:
        rows.append(2 * noises * (len(names) + len(words)))
        return torch.zeros(len(words))

    monkeypatch.setattr("unsee.methods.balance.taken_along", counted)
    method, concept = Balance(**QUICK, looks=2), unsee.Concept("church", synonyms=("chapel",), keep=("castle", "hut"))
    method(shipped, concept)
    assert rows == [pytest.approx(method.compared(shipped, [concept]), rel=0.1)]


def test_predictions_that_do_not_change_go_no_way(pipe: Any) -> None:
    same = {name: weight.detach() for name, weight in values(text_input_weights(pipe.unet)).items()}
    assert not taken_along(pipe, ["church"], ["castle", "dog"], same, noises=1).any()


def test_what_is_erased_goes_its_own_way_by_all_that_it_moves(pipe: Any) -> None:
    """Of one noise, a name beside two words: <d, d> / |d| = |d|, over what is its own; batches change no number."""
    edit = Balance(**QUICK)(pipe, "church")
    found = taken_along(pipe, ["church"], ["church", "castle", "dog"], values_of(edit, pipe), noises=1)
    call = conditions(pipe, ["a church", "a castle", "a dog"], seeds=[0] * 3)
    e = call.output.flatten(1).double()
    with edit.applied(pipe), torch.no_grad():
        d = replay(pipe.unet, call).flatten(1).double() - e
    assert float(found[0]) == pytest.approx(float(d[0].norm() / (e[0] - e.mean(0)).norm()), rel=1e-3)
    parts = taken_along(pipe, ["church"], ["church", "castle", "dog"], values_of(edit, pipe), noises=1, batch=2)
    torch.testing.assert_close(parts, found, rtol=1e-3, atol=1e-4)


def values_of(edit: unsee.Edit, pipe: Any) -> dict[str, Tensor]:
    """What the denoiser's parameters hold with the edit."""
    with edit.applied(pipe):
        held = dict(pipe.unet.named_parameters())
        return {name.removeprefix("unet."): held[name.removeprefix("unet.")].detach().clone() for name in edit.deltas}
