"""Adapters come and go without a trace; an edit holds just what they learned."""

from functools import partial
from typing import Any

import pytest
import torch
from conftest import QUICK
from peft import LoraConfig, LoraModel
from peft.tuners.tuners_utils import BaseTunerLayer

import unsee
from unsee.denoising.record import conditions
from unsee.denoising.replay import replay
from unsee.edits.card import Card
from unsee.edits.edit import LowRank
from unsee.errors import InputError
from unsee.fit.optimizers import Metric
from unsee.methods.lora import ADAPTER, LoRA, adapters, target
from unsee.methods.targets import Erasing, Runs

TINY: dict[str, Any] = {**QUICK, "rank": 2, "preserve_words": 8}


@pytest.fixture
def learned(pipe: Any) -> Any:
    """Adapters of random numbers on every layer of the miniature that can have one, and their learner."""
    method = LoRA(**TINY, select="all")
    weights = method.weights(pipe.unet)
    with adapters(method.rank, pipe.unet, weights, {}, {}, 0) as learner:
        for weight in learner.learned.weights.values():
            weight.data.normal_(std=0.02, generator=torch.Generator().manual_seed(3))
        yield method, learner, weights


def test_the_edit_is_the_adapters_own_difference(pipe: Any, learned: Any) -> None:
    _, learner, weights = learned
    edit = learner.edit("unet", Card("lora", {}, (), "tiny", "", 0, {}))
    assert set(edit.deltas) == {f"unet.{name}" for name in weights}
    kernels = set()
    for name, weight in weights.items():
        layer = pipe.unet.get_submodule(name.removesuffix(".weight"))
        delta = edit.deltas[f"unet.{name}"]
        assert isinstance(delta, LowRank)
        assert delta.down.shape == (2, weight[0].numel())
        torch.testing.assert_close(delta.dense(weight.shape), layer.get_delta_weight(ADAPTER))
        kernels.add(tuple(weight.shape[2:]))
    assert kernels == {(), (1, 1), (3, 3)}


def test_adapters_off_is_the_base_and_on_is_the_edit(pipe: Any) -> None:
    call = conditions(pipe, ["church"])
    method = LoRA(**TINY, select="all")
    weights = method.weights(pipe.unet)
    from unsee.models.fingerprint import fingerprint

    card = Card("lora", {}, (), "tiny", fingerprint(pipe.unet), 0, {})
    with adapters(method.rank, pipe.unet, weights, {}, {}, 0) as learner, torch.no_grad():
        assert torch.equal(replay(pipe.unet, call), call.output)  # B is zero at first
        for weight in learner.learned.weights.values():
            weight.normal_(std=0.02)
        with learner.frozen():
            assert torch.equal(replay(pipe.unet, call), call.output)
        adapted, edit = replay(pipe.unet, call), learner.edit("unet", card)
    assert (adapted - call.output).abs().max() > 0.01
    with edit.applied(pipe), torch.no_grad():
        torch.testing.assert_close(replay(pipe.unet, call), adapted, atol=1e-3, rtol=1e-3)


def test_only_adapters_learn_and_they_start_in_the_metric(pipe: Any) -> None:
    method = LoRA(**TINY)
    weights = method.weights(pipe.unet)
    name = next(iter(weights))
    loud = torch.ones(128).double()
    loud[:64] = 1e3  # the first half of the inputs is what must stay
    metric = Metric(loud.diag(), usual=2.0, rate=0.1, span=torch.randn(9, 128).double())
    with adapters(method.rank, pipe.unet, weights, {name: metric}, {}, 0) as learner:
        assert all(weight.requires_grad for weight in learner.learned.weights.values())
        assert not any(weight.requires_grad for weight in weights.values())
        down = learner.learned.weights[f"{name}.down"].detach().double()
        assert down[:, :64].norm() < 1e-4 * down[:, 64:].norm()
        # All that is spared has unit size behind A, so B reads that.
        torch.testing.assert_close(
            down @ loud.diag().square() @ down.T, torch.eye(len(down)).double(), atol=1e-4, rtol=0
        )
        assert {key: (m.usual, m.root.shape) for key, m in learner.learned.metric.items()} == {
            f"{name}.down": (1.0, (128, 128)),
            f"{name}.up": (2.0, (len(down), len(down))),
        }


@pytest.mark.parametrize("rank", [1, 3])
def test_adapters_start_at_the_closed_form(pipe: Any, rank: int) -> None:
    method = LoRA(**{**TINY, "rank": rank})
    weights = method.weights(pipe.unet)
    name, weight = next(iter(weights.items()))
    start = LowRank(torch.randn(len(weight), 2), torch.randn(2, weight.shape[1]))
    with adapters(method.rank, pipe.unet, weights, {}, {name: start}, 0) as learner:
        found = learner.edit("unet", Card("lora", {}, (), "tiny", "", 0, {})).deltas[f"unet.{name}"]
        assert isinstance(found, LowRank)
        dense = start.dense(weight.shape)
        left = (found.dense(weight.shape) - dense).norm() ** 2
        lost = torch.linalg.svdvals(dense)[rank:].square().sum()  # Eckart and Young
        torch.testing.assert_close(left, lost, atol=1e-2, rtol=1e-3)


def test_only_what_erases_starts_at_the_closed_form(pipe: Any) -> None:
    church = (unsee.Concept("church", anchor="castle"),)
    for action, starts in (("erase", True), ("swap", True), ("enhance", False)):
        method = LoRA(**TINY, action=action)
        assert bool(method.solved(pipe.unet, church)) == starts


def test_targets_are_those_derived_by_hand() -> None:
    # q = 2, c = 7, u = 3, eta = 2: c - u = 4.
    q, c, u = (torch.tensor(value) for value in (2.0, 7.0, 3.0))
    plain, taken = unsee.Concept("x", anchor="a"), unsee.Concept("x", from_="b", anchor="a")
    found = {
        (action, concept.from_): target(action, 2.0, concept, q, c, u).item()
        for action in ("erase", "enhance", "swap")
        for concept in (plain, taken)
    }
    assert found == {
        ("erase", None): -5.0,  # 3 - 2 * 4
        ("erase", "b"): -6.0,  # 2 - 2 * 4
        ("enhance", None): 10.0,  # 2 + 2 * 4
        ("enhance", "b"): 10.0,
        ("swap", None): -2.0,  # 2 - 4
        ("swap", "b"): -2.0,
    }
    # What is asked for is the concept itself unless it is taken from something: then q = c, and swap gives u.
    assert target("swap", 1.0, plain, c, c, u).item() == u.item()


def test_enhance_is_erase_with_the_sign_turned(pipe: Any) -> None:
    concept = unsee.Concept("crown", from_="cowboy")
    rows = {
        action: Erasing(Runs(4, 3.0, "pipeline", 2), partial(target, action, 1.0), ("{}",)).calls(
            pipe, concept, 1, torch.Generator().manual_seed(0)
        )
        for action in ("erase", "enhance")
    }
    for less, more in zip(rows["erase"], rows["enhance"], strict=True):
        asked = replay(pipe.unet, less)
        torch.testing.assert_close(less.output - asked, asked - more.output, atol=1e-3, rtol=1e-3)
        assert (less.output - asked).abs().max() > 0.01


def test_the_loss_of_erasing_falls(shipped: Any) -> None:
    method = LoRA(
        record_steps=3,
        runs=4,
        updates=16,
        batch=4,
        keep_runs=2,
        context_words=0,
        preserve_words=0,
        start="base",
        lr=0.3,
    )
    edit = method(shipped, unsee.Concept("church"))
    first, last = edit.card.curve[0], edit.card.curve[-1]
    assert last[1] < 0.7 * first[1]


def state(net: torch.nn.Module) -> Any:
    return (
        {name: id(module) for name, module in net.named_modules()},
        list(net.state_dict()),
        hasattr(net, "peft_config"),
    )


def test_no_adapter_is_left_after_an_exception(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from unsee.methods import hybrid

    def stop(*_: object, **__: object) -> None:
        assert any(isinstance(module, BaseTunerLayer) for module in pipe.unet.modules())
        raise RuntimeError("stop")

    before = state(pipe.unet)
    monkeypatch.setattr(hybrid, "fit", stop)
    with pytest.raises(RuntimeError, match="stop"):
        LoRA(**TINY)(pipe, unsee.Concept("church"))
    assert state(pipe.unet) == before


def test_no_adapter_is_left_and_torchs_own_random_numbers_go_on(pipe: Any) -> None:
    before = state(pipe.unet)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    LoRA(**TINY)(pipe, unsee.Concept("church"))
    assert torch.equal(torch.rand(3), expected)
    assert state(pipe.unet) == before


def test_what_lora_cannot_do_is_refused(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="to swap 'church', say what takes its place"):
        LoRA(**TINY, action="swap")(pipe, unsee.Concept("church"))
    net = torch.nn.Sequential(torch.nn.Linear(2, 2))
    LoraModel(net, LoraConfig(target_modules=["0"]), "other")
    with pytest.raises(InputError, match="holds adapters already"):
        LoRA(**TINY, select="all").weights(net)
    with pytest.raises(InputError, match="holds no linear or convolution layer"):
        LoRA(**TINY, select="all").weights(torch.nn.Sequential(torch.nn.LayerNorm(2)))
