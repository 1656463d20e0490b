"""The training loop on a problem whose answer is known."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from unsee.calls import Call
from unsee.checkpoint import Checkpoint
from unsee.errors import InputError
from unsee.fit import OPTIMIZERS, WIDTH_RATE, Examiner, Lesson, fan_in, fit, flushing, sparing, trainable


class Line(nn.Module):
    """y = a x + b: a denoiser of two parameters."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(1, dtype=dtype), requires_grad=False)
        self.b = nn.Parameter(torch.zeros(1, dtype=dtype), requires_grad=False)

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor, return_dict: bool = False) -> tuple[torch.Tensor]:
        return (self.a * sample + self.b,)


def line(x: torch.Tensor, y: torch.Tensor) -> Call:
    return Call({"sample": x, "timestep": torch.zeros(len(x)), "return_dict": False}, y)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fit_finds_the_weighted_least_squares_line(dtype: torch.dtype, optimizer: str) -> None:
    # Points (0, 1), (1, 3), (1, 5) with weights 1, 1, 3: through (0, 1) and the mean (1, 4.5), so y = 3.5 x + 1.
    x, y = torch.tensor([[0.0], [1.0], [1.0]], dtype=dtype), torch.tensor([[1.0], [3.0], [5.0]], dtype=dtype)
    net, weight = Line(dtype), torch.tensor([1.0, 1.0, 3.0])
    with trainable(dict(net.named_parameters())):
        losses = fit(
            net,
            dict(net.named_parameters()),
            lambda _: Lesson(line(x, y), weight),
            updates=1500,
            lr=0.1,
            optimizer=optimizer,
        )
        assert net.a.item() == pytest.approx(3.5, abs=0.03)
        assert net.b.item() == pytest.approx(1.0, abs=0.03)
    # At the optimum the residuals are 0, -1.5 and 0.5: 1 * 2.25 + 3 * 0.25 = 3.
    assert losses[-1] == pytest.approx(3.0, abs=0.05)


def test_small_updates_are_not_lost_in_bfloat16() -> None:
    # 256 is followed by 258 in bfloat16: an update of 0.01 is invisible to it, 100 of them are not.
    net = Line(torch.bfloat16)
    net.a.data.fill_(256.0)
    call = line(torch.ones(1, 1, dtype=torch.bfloat16), torch.zeros(1, 1, dtype=torch.bfloat16))
    with trainable({"a": net.a}):
        fit(net, {"a": net.a}, lambda _: Lesson(call, torch.ones(1)), updates=1000, lr=0.01, schedule="constant")
        assert net.a.item() < 250


def test_sparing_moves_only_what_the_others_do_not_use() -> None:
    # What must stay reads (1, 0) only; the concept reads (1, 1). The plain gradient moves both alike.
    others, concept = torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0])
    change = concept @ sparing(torch.outer(others, others), damping=0.01)
    # C = diag(1, 0), its mean diagonal is 1/2: (C / 0.5 + 0.01 I)^-1 = diag(1 / 2.01, 1 / 0.01)
    assert change.tolist() == pytest.approx([1 / 2.01, 100.0], rel=1e-4)
    assert abs(change @ others) < 0.01 * abs(change @ concept)


def test_the_originals_come_back() -> None:
    net = Line()
    before = net.a.data
    with pytest.raises(RuntimeError, match="stop"), trainable({"a": net.a}):
        net.a.data.fill_(5.0)
        raise RuntimeError("stop")
    assert net.a.data is before or net.a.data_ptr() == before.data_ptr()
    assert net.a.item() == 0.0
    assert not net.a.requires_grad


def test_a_loss_that_explodes_says_what_to_change() -> None:
    net = Line()
    call = line(torch.full((1, 1), torch.inf), torch.zeros(1, 1))
    with trainable({"a": net.a}), pytest.raises(FloatingPointError, match="lower lr"):
        fit(net, {"a": net.a}, lambda _: Lesson(call, torch.ones(1)), updates=1)


@pytest.mark.parametrize("bad", [torch.inf, 1e9])
def test_a_loss_that_explodes_leaves_the_last_good_state(tmp_path: Path, bad: float) -> None:
    net, file = Line(), Checkpoint(tmp_path / "state.safetensors", every=0)

    def lesson(update: int) -> Lesson:
        wanted = torch.ones(1, 1) if update < 3 else torch.full((1, 1), bad)
        return Lesson(line(torch.ones(1, 1), wanted), torch.ones(1))

    with trainable({"a": net.a}), pytest.raises(FloatingPointError, match="after 3 updates: try a lower lr"):
        fit(net, {"a": net.a}, lesson, updates=9, checkpoint=file)
    kept = file.load()
    assert kept
    assert len(kept["losses"]) == 2  # before the update after which the loss exploded
    assert torch.isfinite(kept["weight.a"])


@pytest.mark.parametrize(("metric", "share"), [({}, 1.0), ({"a": torch.ones(1, 1)}, 3.0)])
def test_the_rate_follows_the_width(metric: dict[str, torch.Tensor], share: float) -> None:
    assert fan_in(torch.zeros(7, 128)) == 128
    assert fan_in(torch.zeros(7, 16, 3, 3)) == 144
    assert fan_in(torch.zeros(64)) == 64
    net: Any = Line()
    seen = []
    with trainable({"a": net.a}):
        call = line(torch.ones(1, 1), torch.ones(1, 1))
        fit(
            net,
            {"a": net.a},
            lambda k: (seen.append(net.a.item()), Lesson(call, torch.ones(1)))[1],
            updates=2,
            metric=metric,
            stride=3.0,
            schedule="constant",
        )
    # The gradient is scaled to one, and momentum starts with the first gradient.
    assert seen[1] == pytest.approx(WIDTH_RATE * share, rel=1e-4)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
@pytest.mark.parametrize("stop", [1, 4, 7])
def test_a_fit_that_is_stopped_goes_on_to_the_same_bits(tmp_path: Path, optimizer: str, stop: int) -> None:
    rows = [line(torch.randn(2, 1), torch.randn(2, 1)) for _ in range(9)]

    def run(checkpoint: Checkpoint | None, stop: int = 99) -> tuple[float, float, list[float], list[Any]]:
        net, weights = Line(), torch.ones(2)
        examiner = Examiner(rows[0], rows[1], every=2)

        def lesson(update: int) -> Lesson:
            if update == stop:
                raise Stopped
            return Lesson(rows[update], weights)

        parameters = dict(net.named_parameters())
        with trainable(parameters):
            losses = fit(
                net, parameters, lesson, updates=9, optimizer=optimizer, examiner=examiner, checkpoint=checkpoint
            )
            return net.a.item(), net.b.item(), losses, examiner.curve

    whole = run(None)
    file = Checkpoint(tmp_path / "state.safetensors", "one", every=0)
    with pytest.raises(Stopped):
        run(file, stop)
    assert run(file) == whole
    assert [update for update, *_ in whole[3]] == [0, 2, 4, 6, 8, 9]
    with pytest.raises(InputError, match="other settings"):
        run(Checkpoint(file.path, "another"))
    file.path.write_bytes(file.path.read_bytes()[:40])
    with pytest.raises(InputError, match="broken"):
        run(file)


def test_a_fit_stops_when_what_it_aims_at_does_not_get_better() -> None:
    net = Line()
    rows = line(torch.ones(1, 1), torch.zeros(1, 1))  # it answers 0 already: nothing can get better
    with trainable(dict(net.named_parameters())):
        examiner = Examiner(rows, rows, every=2, patience=2)
        losses = fit(
            net, {"a": net.a}, lambda _: Lesson(line(torch.ones(1, 1), torch.ones(1, 1)), torch.ones(1)),
            updates=50, examiner=examiner,
        )  # fmt: skip
    assert len(losses) == 4


def test_a_fit_makes_as_many_updates_as_its_time_allows() -> None:
    net = Line()

    def slow(_: int) -> Lesson:
        time.sleep(0.02)
        return Lesson(line(torch.ones(1, 1), torch.ones(1, 1)), torch.ones(1))

    with trainable(dict(net.named_parameters())):
        assert 3 <= len(fit(net, {"a": net.a}, slow, updates=1000, seconds=0.2)) <= 12


def test_a_fit_knows_no_denormal_numbers_and_its_caller_does() -> None:
    def tiny() -> float:
        return float(torch.tensor(1e-38) * 0.1)

    if not torch.set_flush_denormal(False):
        pytest.skip("this processor has no such mode")
    for before in (False, True):
        torch.set_flush_denormal(before)
        with flushing():
            assert tiny() == 0
        assert (tiny() == 0) is before
    torch.set_flush_denormal(False)
