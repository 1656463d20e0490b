"""Memory changes how many rows are worked on at once, and no result beyond rounding."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import QUICK, Run
from torch import nn

import unsee
from unsee.denoising.activations import inputs, means, second_moments
from unsee.denoising.calls import Call
from unsee.denoising.record import Runs, conditions, record
from unsee.edits.edit import Edit, LowRank
from unsee.evaluate.render import Sampling, Shot, render
from unsee.fit import memory as fit_memory
from unsee.fit.loop import Learned, Optimisation, TrainBatch, fit, trainable
from unsee.fit.memory import SHARE, FitMemory, Ledger, aside, at_once, expected, kept
from unsee.fit.monitor import HeldOutMonitor
from unsee.fit.resume import ResumeFile
from unsee.methods.lora import LoRA
from unsee.models import memory
from unsee.models.memory import OutOfMemory, Portions, size
from unsee.models.weights import select


def numbers(edit: Edit) -> dict[str, torch.Tensor]:
    return {name: delta.up @ delta.down if isinstance(delta, LowRank) else delta for name, delta in edit.deltas.items()}


def alike(one: Edit, other: Edit) -> None:
    """The same edit to rounding, and the same curve."""
    for a, b in zip(numbers(one).values(), numbers(other).values(), strict=True):
        assert (a - b).norm() <= 1e-3 * b.norm()
    for point, same in zip(one.card.curve, other.card.curve, strict=True):
        assert point == pytest.approx(same, rel=1e-3)


class Full:
    """A module runs out of memory with more than so many rows; `rows` are those it was given."""

    def __init__(self, module: nn.Module, most: int, grad: bool | None = None):
        self.most, self.grad, self.rows = most, grad, list[int]()
        self.handle = module.register_forward_pre_hook(self.hook, with_kwargs=True)

    def hook(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if self.grad not in (None, torch.is_grad_enabled()):
            return
        rows = len(args[0] if args else next(iter(kwargs.values())))
        if rows > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        self.rows.append(rows)

    def __enter__(self) -> "Full":
        return self

    def __exit__(self, *_: object) -> None:
        self.handle.remove()


def test_rows_in_portions_give_the_same_adapters(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = LoRA(**QUICK)(pipe, unsee.Concept("church"))
    monkeypatch.setattr(FitMemory, "measure", lambda self: setattr(self, "size", 1))
    with Full(pipe.unet, 99, grad=True) as seen:
        portions = LoRA(**QUICK)(pipe, unsee.Concept("church"))
    assert seen.rows == [1] * (QUICK["updates"] * 2 * QUICK["batch"])
    alike(portions, whole)


def test_as_many_rows_as_fit_and_checkpointing_only_where_none_does(
    pipe: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    call = conditions(pipe, ["a church"], answered=False)
    with trainable(select(pipe.unet, "cross-kv")):
        row, block = kept(pipe.unet, call)
        pipe.unet.enable_gradient_checkpointing()
        fewer, _ = kept(pipe.unet, call)
        pipe.unet.disable_gradient_checkpointing()
        assert fewer < row / 3
        assert 0 < block < row
        for has, asked, size, on in [
            (3.5 * row, None, 3, False),
            (0.9 * row, None, int(0.9 * row // (fewer + block)), True),
            (0.9 * row, False, 1, False),
            (3.5 * row, True, int(3.5 * row // fewer), True),
        ]:
            monkeypatch.setattr(fit_memory, "free", lambda device, has=has: has / SHARE)
            with FitMemory(pipe, call, asked) as space:
                space.measure()
                assert (space.size, pipe.unet.is_gradient_checkpointing) == (size, on)
            assert not pipe.unet.is_gradient_checkpointing
    assert caplog.messages == ["gradient checkpointing is on: one row does not fit into memory without it"]


def test_the_memory_that_autograd_keeps_is_that_counted_by_hand() -> None:
    # x (3, 4) of a matrix that learns, and x W (3, 5), of which relu keeps what it returns: 4 bytes each.
    # The second matrix does not learn: of it the weight is needed, which is there anyway.
    first, second = nn.Linear(4, 5, bias=False), nn.Linear(5, 2, bias=False).requires_grad_(False)
    net = nn.Sequential(first, nn.ReLU(), second)
    ledger = Ledger(net.parameters())
    with torch.autograd.graph.saved_tensors_hooks(ledger.pack, lambda pair: pair[0]):
        out = net(torch.randn(3, 4))
        assert ledger.now == 4 * (3 * 4 + 3 * 5)
    del out
    assert ledger.now == 0


def test_the_expected_memory_is_the_kept_memory(pipe: Any) -> None:
    call = conditions(pipe, ["a church"], answered=False)
    weights = select(pipe.unet, "cross-kv")
    count = sum(weight.numel() for weight in weights.values())
    told = expected(pipe, call, weights, count, 1)
    assert not any(weight.requires_grad for weight in pipe.unet.parameters())
    with trainable(weights):
        assert told.row == pytest.approx(kept(pipe.unet, call)[0], rel=0.1)
    assert told.checkpointed < told.row / 2
    assert told.state == count * 4 * 3  # float32: the copy that learns, a gradient, a momentum
    parts = (pipe.unet, pipe.vae, pipe.text_encoder)
    assert told.model == sum(4 * weight.numel() for part in parts for weight in part.parameters())


def test_a_fit_that_runs_out_of_memory_goes_on_with_half(
    pipe: Any, edit: Edit, caplog: pytest.LogCaptureFixture
) -> None:
    with Full(pipe.unet, 1, grad=True) as full:
        halved = unsee.Hybrid(**QUICK)(pipe, unsee.Concept("church"))
    assert set(full.rows) == {1}
    assert caplog.messages == [
        "out of memory with 4 rows of an update at once: 2 from here on",
        "out of memory with 2 rows of an update at once: 1 from here on",
    ]
    alike(halved, edit)


def test_where_not_one_row_fits_checkpointing_is_tried_and_then_one_line_says_what_helps(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = [word for key, value in QUICK.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    before = FitMemory.measure

    def measure(self: FitMemory) -> None:
        before(self)
        Full(self.net, 0, grad=True)

    monkeypatch.setattr(FitMemory, "measure", measure)
    code, _, err = run("erase", "church", *settings)
    assert code == 1
    lines = [line for line in err.splitlines() if line.startswith("unsee:")]
    assert len(lines) == 1
    assert "out of memory with 1 rows of an update at once: take a smaller selection" in lines[0]
    assert "the method lora" in lines[0]
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("share", "ways"),
    [
        (0.9, ["enable_model_cpu_offload()", "a denoiser of four bits", "many GPUs by FSDP", "ACCELERATE_USE_CPU=1"]),
        (0.01, ["many GPUs by FSDP", "ACCELERATE_USE_CPU=1"]),
    ],
)
def test_a_base_that_is_too_big_for_the_gpu_is_not_put_on_it(
    share: float, ways: list[str], shipped: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = sum(size(part) for part in shipped.components.values() if isinstance(part, nn.Module))
    monkeypatch.setattr(memory, "free", lambda device: int(share * whole))
    with pytest.raises(OutOfMemory) as error:  # before torch looks for a GPU, which is not here
        unsee.load("mini", device="cuda", dtype=torch.float32)
    assert str(error.value).startswith(f"the weights of StableDiffusionPipeline take {whole / 1e9:.1f} GB")
    assert "\n" not in str(error.value)
    offered = ["enable_model_cpu_offload()", "a denoiser of four bits", "many GPUs by FSDP", "ACCELERATE_USE_CPU=1"]
    assert [way for way in offered if way in str(error.value)] == ways


def test_memory_that_runs_out_anywhere_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:

    def load(*_: object, **__: object) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB")

    monkeypatch.setattr("unsee.runs.configure.open_model", load)
    code, _, err = run("erase", "church")
    assert (code, err.count("\n")) == (1, 1)
    assert "out of memory" in err
    assert "--set gradient_checkpointing=true" in err


def test_recording_and_encoding_work_in_portions(pipe: Any, caplog: pytest.LogCaptureFixture) -> None:
    record(
        pipe, ["sea"], seeds=[0], runs=Runs(2), at=[0]
    )  # how it counts guidance, and which arguments have rows, is known

    def run() -> list[torch.Tensor]:
        steps = record(pipe, ["church", "a dog", "sea"], seeds=[1, 2, 3], runs=Runs(2), at=[0])
        return [call.output for step in steps for call in (step.concept, step.null)]

    def hear() -> list[torch.Tensor]:
        prompts, layer = ["church", "a dog", "sea"], "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
        return [
            *second_moments(pipe, prompts, [layer]).values(),
            *inputs(pipe, prompts, [layer]).values(),
            *means(pipe, prompts, [layer]).values(),
        ]

    for work, module, most, what in ((run, pipe.unet, 4, "runs"), (hear, pipe.text_encoder, 1, "prompts")):
        whole = work()
        caplog.clear()
        with Full(module, most):
            halved = work()
        assert caplog.messages
        assert all(f"3 {what} at once: 1 from here on" in message for message in caplog.messages)
        for one, other in zip(halved, whole, strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_pictures_in_portions_and_decoded_one_by_one(pipe: Any, caplog: pytest.LogCaptureFixture) -> None:
    shots = [Shot("church", seed) for seed in range(5)]
    with Full(pipe.vae.decoder, 1) as decoded:
        whole = render(pipe, shots, Sampling(1, 3.0))
    assert decoded.rows == [1] * 5
    assert not pipe.vae.use_slicing
    with Full(pipe.unet, 4) as drawn:  # two rows a picture
        halved = render(pipe, shots, Sampling(1, 3.0))
    assert drawn.rows == [4, 4, 2]
    assert caplog.messages == ["out of memory with 5 pictures at once: 2 from here on"]
    for shot in shots:
        difference = torch.tensor(list(halved[shot].tobytes())).int() - torch.tensor(list(whole[shot].tobytes())).int()
        assert difference.abs().max() <= 1
    with Full(pipe.unet, 1), pytest.raises(OutOfMemory, match="with 1 pictures at once: draw smaller ones"):
        render(pipe, shots, Sampling(1, 3.0))


def test_a_text_encoder_reads_each_prompt_of_a_call_once(pipe: Any) -> None:
    read: list[int] = []
    encoder = pipe.text_encoder
    record(
        pipe, ["sea"], seeds=[0], runs=Runs(2), at=[0]
    )  # how it counts guidance, and which arguments have rows, is known
    inside = next(part for part in encoder.modules() if isinstance(part, torch.nn.Embedding))  # what is computed
    handle = inside.register_forward_hook(lambda _, args, out: read.append(len(out)))
    try:
        call = conditions(pipe, ["church", "a dog", "church"], answered=False)
        alone = [conditions(pipe, [word], answered=False) for word in ("church", "a dog")]
        assert read[0] == 2
        assert set(read[1:]) == {1}  # with what tells where a call has its rows: one prompt, and the same one twice
        before = len(read)
        record(pipe, ["church", "a dog", "church"], seeds=[1, 2, 3], runs=Runs(2), at=[0])
    finally:
        handle.remove()
    assert read[before:].count(2) == 1  # the prompts
    assert set(read[before:]) == {1, 2}
    text = call.arguments["encoder_hidden_states"]
    assert torch.equal(text[0], text[2])
    for row, one in zip(text, alone, strict=False):
        torch.testing.assert_close(row, one.arguments["encoder_hidden_states"][0], atol=1e-5, rtol=1e-5)
    assert not encoder._forward_pre_hooks
    assert not encoder._forward_hooks


def test_finished_portions_are_not_repeated() -> None:
    seen: list[tuple[int, int]] = []

    def work(rows: slice) -> int:
        if rows.stop - rows.start > 3:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")
        seen.append((rows.start, rows.stop))
        return rows.stop - rows.start

    portions = Portions(8)
    assert list(portions.each(work, 10)) == [2, 2, 2, 2, 2]
    assert seen == [(0, 2), (2, 4), (4, 6), (6, 8), (8, 10)]
    assert portions.size == 2
    with pytest.raises(RuntimeError, match="something else"):
        portions.whole(lambda size: (_ for _ in ()).throw(RuntimeError("something else")), 4)
    with pytest.raises(OutOfMemory, match="with 8 rows at once: take fewer"):
        list(Portions(8, fixed=True).each(work, 10))
    assert [at_once(10.0, 3), at_once(2.0, 3), at_once(-1.0, 3)] == [3, 1, 1]


class Line(nn.Module):
    """y = a x: a denoiser of one parameter."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(1, dtype=dtype), requires_grad=False)

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor, return_dict: bool = False) -> tuple[torch.Tensor]:
        return (self.a * sample,)


def line(x: torch.Tensor, y: torch.Tensor) -> Call:
    return Call({"sample": x, "timestep": torch.zeros(len(x)), "return_dict": False}, y)


class Small(FitMemory):
    """Two rows at once, masters in main memory."""

    def __init__(self, home: torch.device | None = None) -> None:
        Portions.__init__(self, 2, "rows", "")
        self.where = home

    def home(self, weights: Any, moments: int) -> torch.device | None:
        return self.where

    def measure(self) -> None:
        pass


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_master_weights_in_main_memory_and_portions_learn_the_same(dtype: torch.dtype, tmp_path: Path) -> None:
    x, y = torch.randn(5, 3).to(dtype), torch.randn(5, 3).to(dtype)

    def learned(memory: FitMemory | None, stop: int = 6, state: ResumeFile | None = None) -> tuple[float, list[float]]:
        net = Line(dtype)
        with trainable({"a": net.a}):
            monitor = HeldOutMonitor(line(x, y), line(x, y), every=2)
            losses = fit(
                net, Learned({"a": net.a}), lambda _: TrainBatch(line(x, y), torch.ones(5)), Optimisation(6, 0.05),
                monitor=monitor, memory=memory, resume=state,
            )  # fmt: skip
            return net.a.item(), losses

    value, losses = learned(None)
    assert value != 0
    for home in (None, torch.device("cpu")):
        found = learned(Small(home))
        assert found[0] == pytest.approx(value, rel=0.01)
        assert found[1] == pytest.approx(losses, rel=0.01)
    # What was too many rows once is not tried again by the fit that goes on.
    state = ResumeFile(tmp_path / "state.safetensors", "one", every=0)
    learned(Small(), state=state)
    kept = state.load()
    assert kept
    assert int(kept["rows"]) == 2
    again = Small()
    again.size = 5
    learned(again, state=state)
    assert again.size == 2


def test_all_but_the_denoiser_waits_aside_and_comes_back() -> None:
    class Part(nn.Module):
        """Says where it is moved to."""

        def __init__(self, refuses: bool = False) -> None:
            super().__init__()
            self.weight, self.moved, self.refuses = nn.Parameter(torch.zeros(1)), list[str](), refuses

        def to(self, device: Any) -> "Part":  # type: ignore[override]
            if self.refuses:
                raise ValueError("`.to` is not supported for 8-bit models")
            self.moved.append(str(device))
            return self

    class Pipe:
        unet, text_encoder, packed, moving = Part(), Part(), Part(refuses=True), Part()

        @property
        def components(self) -> dict[str, Any]:
            return {"unet": self.unet, "text_encoder": self.text_encoder, "packed": self.packed, "moving": self.moving}

    pipe = Pipe()
    pipe.moving._hf_hook = object()  # type: ignore[assignment]  # accelerate moves it whenever it is used
    with pytest.raises(KeyError), aside(pipe):
        assert pipe.text_encoder.moved == ["cpu"]
        raise KeyError
    assert pipe.text_encoder.moved == ["cpu", "cpu"]  # where it was, which here is the same
    assert pipe.unet.moved == pipe.moving.moved == []


def test_a_dry_run_says_the_memory_and_does_nothing(run: Run, tmp_path: Path) -> None:
    code, out, err = run("erase", "church", "--method", "hybrid", "--dry-run", "--out", tmp_path / "x")
    assert code == 0, err
    following = out.splitlines()[-1]
    memory = [line for line in out.splitlines() if line.startswith("fit ")][-1]
    assert "estimated" in memory
    assert "16 rows of" in memory
    assert following == f"next: unsee erase church --method hybrid --out {tmp_path / 'x'}"
    assert not (tmp_path / "x").exists()
    assert "solved, not trained" in run("erase", "church", "--dry-run")[1]


def test_batch_is_how_many_pictures_are_drawn_at_once(
    run: Run, edit: Edit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unsee.evaluate import render as module

    seen: list[int] = []
    before = module.draw

    def draw(pipe: Any, prompts: Any, *others: Any, **options: Any) -> Any:
        seen.append(len(prompts))
        return before(pipe, prompts, *others, **options)

    monkeypatch.setattr(module, "draw", draw)
    path = edit.save(tmp_path / "edit.safetensors")
    code, _, err = run("generate", "church", "--edit", path, "-n", "3", "--steps", "1", "--batch", "2")
    assert code == 0, err
    assert seen == [2, 1, 2, 1]
