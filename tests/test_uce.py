"""The closed form, by hand and against the objective that it should minimise; what it reads, and what it refuses."""

from typing import Any

import pytest
import torch

import unsee
from unsee.edit import LowRank
from unsee.errors import InputError
from unsee.listening import inputs
from unsee.methods import settings
from unsee.methods.settings import COMPANY, contexts, known_prompts, spared_words, stand_ins
from unsee.methods.uce import UCE, solve

TINY: dict[str, Any] = {"spared": 8, "neutral": ("cat", "house"), "templates": ("{}", "a {}")}


def difference(found: LowRank) -> torch.Tensor:
    return found.up @ found.down


def test_two_by_two_by_hand() -> None:
    # c = (1, 0) should be read as a = (0, 1), and p = (0, 1) stays. The mean square of c is 1/2, so ridge 2 is
    # lambda = 1. W0 (a - c) = (2 - 1, 4 - 3) = (1, 1), and c c^T + p p^T + I = 2 I, so D = (1, 1)^T (1/2, 0).
    W0 = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    c, a = torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0], [1.0]])
    D = difference(solve(W0, c, a, P=torch.diag(torch.tensor([0.0, 1.0])), s=1.0, ridge=2.0))
    assert D.tolist() == [[0.5, 0.0], [0.5, 0.0]]


def problem(names: int = 3, features: int = 12, out: int = 7) -> tuple[torch.Tensor, ...]:
    rng = torch.Generator().manual_seed(1)
    W0, C, A, p = (
        torch.randn(*size, generator=rng) for size in ((out, features), *[(features, names)] * 2, (features, 5))
    )
    return W0, C, A, p


@pytest.mark.parametrize("s", [0.0, 2.0])
def test_the_objective_is_at_its_minimum(s: float) -> None:
    W0, C, A, p = (tensor.double() for tensor in problem())

    def objective(D: torch.Tensor) -> torch.Tensor:
        """eq. 7, as it is written."""
        W, ridge = W0 + D, 0.3 * C.square().mean()
        stays = (W @ p - W0 @ p).square().sum(0).mean()
        return (W @ C - W0 @ A).square().sum() + s * stays + ridge * (W - W0).square().sum()

    D = difference(solve(W0, C, A, p @ p.T / p.shape[1], s, 0.3)).double()
    gradient = torch.autograd.functional.jacobian(objective, D)
    at_zero = torch.autograd.functional.jacobian(objective, torch.zeros_like(D))
    assert gradient.norm() < 1e-5 * at_zero.norm()


@pytest.mark.parametrize("names", [1, 3])
def test_the_rank_is_the_number_of_names(names: int) -> None:
    W0, C, A, p = problem(names)
    found = solve(W0, C, A, p @ p.T, 1.0, 0.1)
    assert (found.up.shape, found.down.shape) == ((7, names), (names, 12))
    assert torch.linalg.matrix_rank(difference(found)).item() == names


def test_what_stays_is_exact_as_its_weight_grows() -> None:
    W0, C, A, p = problem()
    change = [
        (difference(solve(W0, C, A, p @ p.T, s, 1e-6)) @ p).norm() / (W0 @ p).norm() for s in (1e-3, 1.0, 1e3, 1e6)
    ]
    assert change == sorted(change, reverse=True)
    assert change[-1] < 1e-5
    # 3 names and 5 words fit into 12 features: the names still move all the way.
    D = difference(solve(W0, C, A, p @ p.T, 1e3, 1e-6))
    torch.testing.assert_close((W0 + D) @ C, W0 @ A, atol=0.02, rtol=0.02)


def test_it_does_not_matter_how_large_a_text_encoder_counts() -> None:
    W0, C, A, p = problem()
    small, large = (difference(solve(W0, k * C, k * A, k * k * p @ p.T, 2.0, 0.3)) for k in (1.0, 50.0))
    torch.testing.assert_close(small, large)


def test_stand_ins_leave_all_other_tokens_in_their_places(pipe: Any) -> None:
    rng, name = torch.Generator().manual_seed(0), "a garbage truck"
    words = stand_ins(pipe, name, 5, [unsee.Concept(name)], rng)
    assert len(set(words)) == 5
    length = {len(pipe.tokenizer(f"{word} in ink style").input_ids) for word in words}
    assert length == {len(pipe.tokenizer(f"{name} in ink style").input_ids)}


def test_names_are_met_beside_random_words(pipe: Any) -> None:
    ways = contexts(pipe, ("a {}",), 3, [unsee.Concept("church")], torch.Generator().manual_seed(0))
    assert ways[0] == "a {}"
    assert len(set(ways)) == 1 + 3 * len(COMPANY)
    assert all("{}" in way and "*" not in way for way in ways)


def test_other_names_of_a_concept_are_not_spared(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "random_words", lambda *_: ["dog", "church", "castle", "house", "star"])
    layers = [name.removesuffix(".weight") for name in UCE().weights(pipe.unet)]
    some = spared_words(pipe, 5, [unsee.Concept("church")], layers, torch.Generator())
    assert "church" not in some
    assert {"dog", "star"} <= set(some)
    assert len(spared_words(pipe, 5, [unsee.Concept("church")], [], torch.Generator())) == 5


def test_a_users_words_come_as_often_as_all_others_together() -> None:
    rng = torch.Generator().manual_seed(0)
    prompts = known_prompts(["castle", "tower", *"abcdefgh"], 2, ("a {}",), ("a {} and a dog",), rng)
    assert [prompts.count(f"a {word}{more}") for word in ("castle", "tower") for more in ("", " and a dog")] == [4] * 4
    assert [prompts.count(f"a {word} and a dog") for word in "abcdefgh"] == [2] * 8
    assert len(prompts) == 2 * 16


def test_a_word_of_keep_is_hardly_read_otherwise(shipped: Any) -> None:
    """Two titles with much in common: erased, the one takes the other along unless it is named."""

    def moved(keep: tuple[str, ...]) -> float:
        edit = UCE(spared=96)(shipped, unsee.Concept("the great wave", keep=keep))
        found = [(layer.removesuffix(".weight").removeprefix("unet."), d) for layer, d in edit.deltas.items()]
        layer, delta = found[0]
        assert isinstance(delta, LowRank)
        (x,) = inputs(shipped, ["the starry night"], [layer]).values()
        return float((x @ delta.down.T @ delta.up.T).norm())

    assert moved(("the starry night", "mount fuji")) < 0.5 * moved(())


def test_the_model_reads_the_anchor_in_the_name(pipe: Any) -> None:
    """Measured on the pipeline's own encoder: the mean over what differs between two prompts of one word each."""
    method = UCE(**{**TINY, "templates": ("{}",), "company": 0, "eta": 0, "ridge": 1e-3, "keep_weight": 0.1})
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
    assert len(kept) == 2 + TINY["spared"]
    assert "cat" not in kept


def test_inputs_are_what_the_text_encoder_says(pipe: Any) -> None:
    layer = next(iter(UCE().weights(pipe.unet))).removesuffix(".weight")
    heard = inputs(pipe, ["church", "a dog"], [layer])[layer]
    for row, text in zip(heard, ("church", "a dog"), strict=True):
        torch.testing.assert_close(row, pipe.encode_prompt(text, "cpu", 1, False)[0][0], atol=1e-5, rtol=1e-5)


def test_what_it_cannot_do_is_refused(pipe: Any) -> None:
    with pytest.raises(InputError, match="uce cannot erase 'crown' from 'cowboy'"):
        UCE(**TINY)(pipe, unsee.Concept("crown", from_="cowboy"))
    with pytest.raises(InputError, match="uce sees no picture"):
        UCE(**TINY)(pipe, unsee.Concept("church", image="church.png"))
    with pytest.raises(InputError, match="reads the same in 'church' and in 'church'"):
        UCE(**TINY)(pipe, unsee.Concept("church", anchor="church"))
    with pytest.raises(InputError, match="Linear has no matrix known to read the prompt"):
        UCE().weights(torch.nn.Linear(2, 2))
