"""The training loop on a problem whose answer is known."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from unsee.denoising.calls import Call
from unsee.errors import Diverged, InputError
from unsee.fit.loop import Learned, Optimisation, TrainBatch, fit, flushing, trainable
from unsee.fit.monitor import HeldOutMonitor
from unsee.fit.optimizers import OPTIMIZERS, RATE, VECTOR, Metric, fan_in, metrics, reach, root
from unsee.fit.resume import ResumeFile


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
            Learned(dict(net.named_parameters())),
            lambda _: TrainBatch(line(x, y), weight),
            Optimisation(1500, 0.1 if optimizer == "adam" else 0.1 / VECTOR, optimizer),
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
        fit(
            net,
            Learned({"a": net.a}),
            lambda _: TrainBatch(call, torch.ones(1)),
            Optimisation(1000, 0.01, schedule="constant"),
        )
        assert net.a.item() < 250


def test_a_metric_moves_only_what_the_others_do_not_use() -> None:
    # What must stay reads (2, 0) only; the concept reads (1, 1). The plain gradient moves both alike.
    net = nn.ModuleDict({"k": nn.Linear(2, 1, bias=False)})
    net["k"].weight.data.copy_(torch.tensor([[3.0, 5.0]]))
    others, concept = torch.tensor([2.0, 0.0]), torch.tensor([[1.0, 1.0]])
    moments = {"k": torch.outer(others, others)}, {"k": concept.T @ concept}
    metric = metrics(net, *moments, {"k": concept}, damping=0.5, rate=0.1)["k"]
    # P + E / 2 = ((4.5, 0.5), (0.5, 0.5)), whose determinant is 2: its inverse is ((0.25, -0.25), (-0.25, 2.25)).
    M = torch.cholesky_inverse(metric.root)
    assert M.flatten().tolist() == pytest.approx([0.25, -0.25, -0.25, 2.25], rel=1e-4)
    assert metric.usual == pytest.approx(6.0)  # rms(W p) = 3 * 2
    change = (concept.double() @ M)[0]  # of the gradient, what it becomes: (0, 2)
    assert change.tolist() == pytest.approx([0.0, 2.0], abs=1e-4)


def test_the_root_of_a_moment_times_itself_is_the_moment() -> None:
    x = torch.randn(50, 6, dtype=torch.double)
    R = root(x.T @ x)
    torch.testing.assert_close(R @ R.T, x.T @ x, rtol=1e-6, atol=1e-6)
    never = torch.diag(torch.tensor([4.0, 0.0]))  # a feature that is always zero
    assert torch.isfinite(torch.linalg.inv(root(never))[0, 0])


def test_a_fit_restores_the_original_weights() -> None:
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
    with trainable({"a": net.a}), pytest.raises(Diverged, match="lower lr"):
        fit(net, Learned({"a": net.a}), lambda _: TrainBatch(call, torch.ones(1)), Optimisation(1))


@pytest.mark.parametrize("bad", [torch.inf, 1e9])
def test_a_loss_that_explodes_leaves_the_last_good_state(tmp_path: Path, bad: float) -> None:
    net, file = Line(), ResumeFile(tmp_path / "state.safetensors", every=0)

    def make_batch(update: int) -> TrainBatch:
        wanted = torch.ones(1, 1) if update < 3 else torch.full((1, 1), bad)
        return TrainBatch(line(torch.ones(1, 1), wanted), torch.ones(1))

    with trainable({"a": net.a}), pytest.raises(Diverged, match="after 3 updates: try a lower lr"):
        fit(net, Learned({"a": net.a}), make_batch, Optimisation(9), resume=file)
    kept = file.load()
    assert kept
    assert len(kept["losses"]) == 2  # before the update after which the loss exploded
    assert torch.isfinite(kept["weight.a"])


class Layer(nn.Module):
    """A denoiser of one linear layer, and a table that it does not use."""

    def __init__(self, features: int, weight: float, bias: float) -> None:
        super().__init__()
        self.layer = nn.Linear(features, 1)
        self.layer.weight.data.fill_(weight)
        self.layer.bias.data.fill_(bias)
        self.table = nn.Parameter(torch.full((4,), -5.0))
        self.requires_grad_(False)

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor, return_dict: bool = False) -> tuple[torch.Tensor]:
        return (self.layer(sample),)


def test_the_step_limits_how_far_an_output_moves() -> None:
    # x = (3, 3), W = (2, 2), b = 1, so y = 13. An aligned change of W adds up over two inputs of size 3.
    net = Layer(2, 2.0, 1.0)
    steps = reach(net, dict(net.named_parameters()), line(torch.full((4, 2), 3.0), torch.zeros(4, 1)))
    assert steps == pytest.approx({"layer.weight": 13 / (2 * 3), "layer.bias": 13 * VECTOR, "table": 5 * VECTOR})
    assert fan_in(torch.zeros(7, 16, 3, 3)) == 144


SPARED = Metric(2 * torch.eye(1).double(), usual=7.0, rate=0.01, span=torch.ones(1, 1))


@pytest.mark.parametrize(
    ("metric", "lr", "step"),
    [
        ({}, None, RATE * 3),  # x = 1 and y = 3
        ({}, 0.5, 0.5 * 3),
        ({"layer.weight": SPARED}, None, 0.01 * 7 / 2),  # M = 1/4: g M / sqrt(g M g) is one half
        ({"layer.weight": SPARED}, 0.5, 0.5 * 7 / 2),
    ],
)
def test_the_first_update_has_the_full_step(metric: dict[str, Metric], lr: float | None, step: float) -> None:
    net, seen = Layer(1, 3.0, 0.0), []
    weights = {"layer.weight": net.layer.weight}
    call = line(torch.ones(1, 1), torch.full((1, 1), 9.0))

    def make_batch(update: int) -> TrainBatch:
        seen.append(net.layer.weight.item())
        return TrainBatch(call, torch.ones(1))

    with trainable(weights):
        fit(net, Learned(weights, metric), make_batch, Optimisation(2, lr, schedule="constant"))
    # The gradient is scaled to one, and momentum starts with the first gradient.
    assert seen[1] - seen[0] == pytest.approx(step, rel=1e-4)


@pytest.mark.parametrize("spared", [False, True])
@pytest.mark.parametrize(
    "kind", ["inputs ten times", "every input twice", "every input twice, halved", "outputs ten times"]
)
def test_a_fit_is_the_same_function_however_its_numbers_are_written(kind: str, spared: bool) -> None:
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(8, 3, generator=rng), torch.randn(8, 1, generator=rng)

    def learned(turn: Callable[[torch.Tensor], torch.Tensor], back: float, size: float) -> torch.Tensor:
        """Predictions for `turn`ed inputs, of weights that stand for the same function, after some updates."""
        net = Layer(turn(x).shape[1], 0.3 * size * back, 0.1 * size)
        moment = turn(x).T @ turn(x) / 8
        metric = metrics(net, {"layer": moment}, {"layer": moment}, {"layer": x}, 0.1, 0.1) if spared else {}
        weights = {"layer.weight": net.layer.weight, "layer.bias": net.layer.bias}
        call = line(turn(x), size * y)
        with trainable(weights), torch.no_grad():
            with torch.enable_grad():
                fit(
                    net,
                    Learned(weights, {f"{n}.weight": m for n, m in metric.items()}),
                    lambda _: TrainBatch(call, torch.ones(8)),
                    Optimisation(12),
                )
            return net(turn(x), torch.zeros(8))[0] / size

    turns: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], float, float]] = {
        "inputs ten times": (lambda x: 10 * x, 0.1, 1.0),
        "every input twice": (lambda x: torch.cat([x, x], 1), 0.5, 1.0),
        "every input twice, halved": (lambda x: torch.cat([x, x], 1) / 2, 1.0, 1.0),
        "outputs ten times": (lambda x: x, 1.0, 10.0),
    }
    before = learned(lambda x: x, 1.0, 1.0)
    assert (before - (0.3 * x.sum(1, keepdim=True) + 0.1)).norm() > 0.1
    torch.testing.assert_close(learned(*turns[kind]), before, rtol=1e-3, atol=1e-3)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
@pytest.mark.parametrize("stop", [1, 4, 7])
def test_a_fit_that_is_stopped_goes_on_to_the_same_bits(tmp_path: Path, optimizer: str, stop: int) -> None:
    rows = [line(torch.randn(2, 1), torch.randn(2, 1)) for _ in range(9)]

    def run(resume: ResumeFile | None, stop: int = 99) -> tuple[float, float, list[float], list[Any]]:
        net, weights = Line(), torch.ones(2)
        monitor = HeldOutMonitor(rows[0], rows[1], every=2)

        def make_batch(update: int) -> TrainBatch:
            if update == stop:
                raise Stopped
            return TrainBatch(rows[update], weights)

        parameters = dict(net.named_parameters())
        with trainable(parameters):
            losses = fit(
                net,
                Learned(parameters),
                make_batch,
                Optimisation(9, optimizer=optimizer),
                monitor=monitor,
                resume=resume,
            )
            return net.a.item(), net.b.item(), losses, monitor.curve

    whole = run(None)
    file = ResumeFile(tmp_path / "state.safetensors", "one", every=0)
    with pytest.raises(Stopped):
        run(file, stop)
    assert run(file) == whole
    assert [update for update, *_ in whole[3]] == [0, 2, 4, 6, 8, 9]
    with pytest.raises(InputError, match="other settings"):
        run(ResumeFile(file.path, "another"))
    file.path.write_bytes(file.path.read_bytes()[:40])
    with pytest.raises(InputError, match="broken"):
        run(file)


def test_a_fit_stops_when_what_it_aims_at_does_not_get_better() -> None:
    net = Line()
    rows = line(torch.ones(1, 1), torch.zeros(1, 1))  # it answers 0 already: nothing can get better
    with trainable(dict(net.named_parameters())):
        monitor = HeldOutMonitor(rows, rows, every=2, patience=2)
        losses = fit(
            net, Learned({"a": net.a}), lambda _: TrainBatch(line(torch.ones(1, 1), torch.ones(1, 1)), torch.ones(1)),
            Optimisation(50), monitor=monitor,
        )  # fmt: skip
    assert len(losses) == 4


def test_a_fit_makes_as_many_updates_as_its_time_allows() -> None:
    net = Line()

    def slow(_: int) -> TrainBatch:
        time.sleep(0.02)
        return TrainBatch(line(torch.ones(1, 1), torch.ones(1, 1)), torch.ones(1))

    with trainable(dict(net.named_parameters())):
        assert 3 <= len(fit(net, Learned({"a": net.a}), slow, Optimisation(1000, seconds=0.2))) <= 12


def test_denormal_numbers_are_off_only_within_a_fit() -> None:
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
