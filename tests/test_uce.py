"""The closed form, by hand and against the objective that it should minimise; what it reads, and what it refuses."""

from typing import Any

import pytest
import torch

import unsee
from unsee.denoising.activations import inputs
from unsee.edits.edit import LowRank
from unsee.errors import InputError
from unsee.methods import prompts
from unsee.methods.prompts import CONTEXTS, other_words, preservation_prompts, stand_ins, with_contexts
from unsee.methods.uce import UCE, solve

TINY: dict[str, Any] = {"preserve_words": 8, "neutral": ("cat", "house"), "templates": ("{}", "a {}")}


def difference(found: LowRank) -> torch.Tensor:
    return found.up @ found.down


def test_the_solution_of_two_by_two_matrices_is_that_derived_by_hand() -> None:
    # c = (1, 0) should be read as a = (0, 1), and p = (0, 1) stays. K = (a - c) c^T has the first column (-1, 1), and
    # S = c c^T + p p^T = I, so D = W0 K: its first column is W0 (-1, 1) = (2 - 1, 4 - 3), its second is 0.
    W0 = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    K = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
    D = difference(solve(W0, K, S=torch.eye(2), rank=1))
    torch.testing.assert_close(D, torch.tensor([[1.0, 0.0], [1.0, 0.0]]), atol=1e-6, rtol=0)


class Problem:
    """Names of several tokens each, what is to be read instead, and what stays, as columns."""

    def __init__(self, names: int = 3, tokens: int = 5, features: int = 12, out: int = 7, s: float = 2.0) -> None:
        rng = torch.Generator().manual_seed(1)
        sizes = ((out, features), *[(names, features, tokens)] * 2, (features, 20))
        self.W0, self.C, self.A, self.p = (torch.randn(*size, generator=rng).double() for size in sizes)
        self.s, self.names = s, names

    def solve(self, rank: int | None = None) -> LowRank:
        C, A, tokens = self.C, self.A, self.C.shape[-1]
        K = ((A - C) @ C.mT).sum(0) / tokens
        S = (C @ C.mT).sum(0) / tokens + self.s * self.p @ self.p.T / self.p.shape[1]
        return solve(self.W0.float(), K, S, rank or self.names)

    def objective(self, D: torch.Tensor) -> torch.Tensor:
        """eq. 7, as it is written."""
        W = self.W0 + D
        stays = (W @ self.p - self.W0 @ self.p).square().sum(0).mean()
        return (W @ self.C - self.W0 @ self.A).square().sum(1).mean(-1).sum() + self.s * stays


@pytest.mark.parametrize("s", [0.0, 2.0])
def test_the_objective_is_at_its_minimum(s: float) -> None:
    it = Problem(s=s)
    D = difference(it.solve(rank=7)).double()
    gradient = torch.autograd.functional.jacobian(it.objective, D)
    at_zero = torch.autograd.functional.jacobian(it.objective, torch.zeros_like(D))
    assert gradient.norm() < 1e-5 * at_zero.norm()


@pytest.mark.parametrize("names", [1, 3])
def test_the_rank_is_the_number_of_names(names: int) -> None:
    found = Problem(names).solve()
    assert (found.up.shape, found.down.shape) == ((7, names), (names, 12))
    assert torch.linalg.matrix_rank(difference(found)).item() == names


def test_no_change_of_that_rank_is_nearer() -> None:
    it, rng = Problem(names=2), torch.Generator().manual_seed(2)
    found = it.solve()
    best = it.objective(difference(found).double())
    for _ in range(50):
        up, down = (x + 0.01 * torch.randn(x.shape, generator=rng) for x in (found.up, found.down))
        assert it.objective((up @ down).double()) > best


def test_what_stays_is_exact_as_its_weight_grows() -> None:
    change = []
    for s in (1e-3, 1.0, 1e3):  # above, what is left is rounding
        it = Problem(names=2, tokens=1, s=s)
        it.p = it.p[:, :5]
        D = difference(it.solve()).double()
        change.append(max(1e-7, float((D @ it.p).norm() / (it.W0 @ it.p).norm())))  # below that it is rounding
    assert change == sorted(change, reverse=True)
    assert change[-1] < 1e-6
    # 2 names of a token each and 5 words fit into 12 features: the names still move all the way.
    it = Problem(names=2, tokens=1, s=1e3)
    it.p = it.p[:, :5]
    D = difference(it.solve()).double()
    torch.testing.assert_close((it.W0 + D) @ it.C, it.W0 @ it.A, atol=0.05, rtol=0.05)


def test_the_basis_of_text_features_does_not_matter() -> None:
    here, there = Problem(), Problem()
    basis = torch.randn(12, 12, generator=torch.Generator().manual_seed(3)).double()
    there.C, there.A, there.p = basis @ there.C, basis @ there.A, basis @ there.p
    there.W0 = there.W0 @ torch.linalg.inv(basis)
    torch.testing.assert_close(
        difference(there.solve()).double() @ basis, difference(here.solve()).double(), atol=1e-4, rtol=1e-4
    )


def test_stand_ins_leave_all_other_tokens_in_their_places(pipe: Any) -> None:
    rng, name = torch.Generator().manual_seed(0), "a garbage truck"
    words = stand_ins(pipe, name, 5, [unsee.Concept(name)], rng)
    assert len(set(words)) == 5
    length = {len(pipe.tokenizer(f"{word} in ink style").input_ids) for word in words}
    assert length == {len(pipe.tokenizer(f"{name} in ink style").input_ids)}


def test_names_are_read_beside_random_words(pipe: Any) -> None:
    ways = with_contexts(pipe, ("a {}",), 3, [unsee.Concept("church")], torch.Generator().manual_seed(0))
    assert ways[0] == "a {}"
    assert len(set(ways)) == 1 + 3 * len(CONTEXTS)
    assert all("{}" in way and "*" not in way for way in ways)


def test_other_names_of_a_concept_are_not_preserved(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "random_words", lambda *_: ["dog", "church", "castle", "house", "star"])
    layers = [name.removesuffix(".weight") for name in UCE().weights(pipe.unet)]
    some = other_words(pipe, 5, [unsee.Concept("church")], layers, torch.Generator())
    assert "church" not in some
    assert {"dog", "star"} <= set(some)
    assert len(other_words(pipe, 5, [unsee.Concept("church")], [], torch.Generator())) == 5


def test_words_to_keep_come_as_often_as_all_other_words_together() -> None:
    rng = torch.Generator().manual_seed(0)
    prompts = preservation_prompts(["castle", "tower", *"abcdefgh"], 2, ("a {}",), ("a {} and a dog",), rng)
    assert [prompts.count(f"a {word}{more}") for word in ("castle", "tower") for more in ("", " and a dog")] == [4] * 4
    assert [prompts.count(f"a {word} and a dog") for word in "abcdefgh"] == [2] * 8
    assert len(prompts) == 2 * 16


def test_the_model_reads_a_kept_word_nearly_as_before(shipped: Any) -> None:
    """Two titles with much in common: erased, the one takes the other along unless it is named."""

    def moved(keep: tuple[str, ...]) -> float:
        edit = UCE(preserve_words=96)(shipped, unsee.Concept("the great wave", keep=keep))
        found = [(layer.removesuffix(".weight").removeprefix("unet."), d) for layer, d in edit.deltas.items()]
        layer, delta = found[0]
        assert isinstance(delta, LowRank)
        (x,) = inputs(shipped, ["the starry night"], [layer]).values()
        return float((x @ delta.down.T @ delta.up.T).norm())

    assert moved(("the starry night", "mount fuji")) < 0.5 * moved(())


def test_the_model_reads_the_anchor_in_the_name(pipe: Any) -> None:
    """Measured on the pipeline's own encoder: the mean over what differs between two prompts of one word each."""
    method = UCE(**{**TINY, "templates": ("{}",), "context_words": 0, "eta": 0, "keep_weight": 0.1})
    edit = method(pipe, [unsee.Concept("church", anchor="castle"), unsee.Concept("dog", anchor="guitar")])
    weights = {name: weight.detach().clone() for name, weight in method.weights(pipe.unet).items()}
    with edit.applied(pipe):
        for word, other in (("church", "castle"), ("dog", "guitar")):
            c, a = (pipe.encode_prompt(text, "cpu", 1, False)[0][0, 1:].mean(0) for text in (word, other))
            for name, weight in method.weights(pipe.unet).items():
                left = (weight @ c - weights[name] @ a).norm() / (weights[name] @ (c - a)).norm()
                assert left < 0.15, name
    assert {tuple(delta.down.shape) for delta in edit.deltas.values()} == {(2, 128)}  # type: ignore[union-attr]


def test_a_synonym_is_a_column_of_its_own(pipe: Any) -> None:
    edit = UCE(**TINY)(pipe, unsee.Concept("dog", synonyms=("puppy",)))
    assert all(isinstance(delta, LowRank) and delta.down.shape[0] == 2 for delta in edit.deltas.values())


def test_kept_words_are_on_the_card_and_are_not_erased(pipe: Any) -> None:
    kept = UCE(**TINY)(pipe, unsee.Concept("cat", keep=("castle",))).card.kept
    assert kept[:2] == ("castle", "house")
    assert len(kept) == 2 + TINY["preserve_words"]
    assert "cat" not in kept


def test_inputs_are_the_text_encoders_features(pipe: Any) -> None:
    layer = next(iter(UCE().weights(pipe.unet))).removesuffix(".weight")
    heard = inputs(pipe, ["church", "a dog"], [layer])[layer]
    for row, text in zip(heard, ("church", "a dog"), strict=True):
        torch.testing.assert_close(row, pipe.encode_prompt(text, "cpu", 1, False)[0][0], atol=1e-5, rtol=1e-5)


def test_what_uce_cannot_do_is_refused(pipe: Any) -> None:
    with pytest.raises(InputError, match="uce moves names, so it cannot erase 'crown' from 'cowboy'"):
        UCE(**TINY)(pipe, unsee.Concept("crown", from_="cowboy"))
    with pytest.raises(InputError, match="uce uses no image"):
        UCE(**TINY)(pipe, unsee.Concept("church", image="church.png"))
    with pytest.raises(InputError, match="anchor is 'church', which is the concept"):
        UCE(**TINY)(pipe, unsee.Concept("church", anchor="church"))
    with pytest.raises(InputError, match="Linear has no matrix known to read the prompt"):
        UCE().weights(torch.nn.Linear(2, 2))
