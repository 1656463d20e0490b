"""What erasing costs on the card at hand, in at most eight minutes and without a network: `make gpu`.

    python -m benchmarks.gpu [--minutes 8] [--out gpu.md] [--toy]

Pipelines of the true sizes of SD 1.4, SDXL and FLUX.1-dev get random weights in bfloat16 (benchmarks/sized.py). Each
model is a part: a process of its own, with a time limit of its own. Within a part, in this order:

    rows      one row forward without gradients, as in drawing; one row forward and backward: bare training
    erase     unsee erase by the defaults, all 12 updates (not FLUX.1-dev, which takes adapters)
    LoRA      the same by --method lora
    evaluate  8 pictures of 20 steps, guided

SDXL and FLUX.1-dev take FEWER updates, runs and words, told beside; the rows of an update are the default's.

The authors' loop (arXiv:2303.07345 and its code) is not run but counted from "rows": each of its 1000 updates draws a
guided run to a random one of 50 steps, so 25 steps of two rows on average, asks the frozen model three times, and
trains on one row. A result is written as soon as it is there; a part that runs out of time or memory leaves what it
has. `--toy` takes narrow models on a CPU, to try the script itself.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import unsee
from benchmarks.sized import build, four_bits
from unsee.denoising.record import conditions
from unsee.evaluate.render import Sampling, Shot, render
from unsee.fit.monitor import error
from unsee.methods.hybrid import Hybrid
from unsee.methods.lora import LoRA
from unsee.models.denoisers import denoiser
from unsee.models.memory import advice, out_of_memory
from unsee.models.weights import select
from unsee.runs.erase import peak_memory

PARTS = {"SD 1.4": 100, "SDXL": 150, "FLUX.1-dev": 150, "FLUX.1-dev on four bits": 120}
"""Seconds that a part may take at most; what others leave over is no part's gain, the whole limit holds too."""
WHEELS = {"bitsandbytes": "bases of four bits"}
"""What may be lacking, and what is left out then."""
FEWER: dict[str, Any] = {
    "updates": 4,
    "runs": 2,
    "keep_runs": 2,
    "held_out": 0,
    "preserve_words": 32,
    "context_words": 2,
}
"""What a part has the time for where a model is large: hearing words alone asks FLUX.1-dev 1,600 times."""
TOY: dict[str, Any] = {
    "record_steps": 2,
    "updates": 2,
    "batch": 2,
    "runs": 2,
    "keep_runs": 2,
    "held_out": 0,
    "preserve_words": 8,
}
TOY |= {"context_words": 2}


def accelerator(toy: bool) -> torch.device:
    found = None if toy else torch.accelerator.current_accelerator(check_available=True)
    return found or torch.device("cpu")


def card(device: torch.device) -> str:
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    return "a CPU" if device.type == "cpu" else device.type


class Meter:
    """Prints each result as a line of JSON: what, seconds and the most memory that it took."""

    def __init__(self, part: str, device: torch.device):
        self.part, self.device = part, device

    def line(self, what: str, **numbers: float | str) -> None:
        print(json.dumps({"part": self.part, "what": what, **numbers}), flush=True)

    def wait(self) -> None:
        if self.device.type != "cpu":
            torch.accelerator.synchronize()

    @contextmanager
    def work(self, what: str, **numbers: float) -> Iterator[dict[str, float]]:
        """Within the context something is measured; an error of memory is a result too."""
        found: dict[str, float] = dict(numbers)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        self.wait()
        start = time.perf_counter()
        try:
            yield found
            self.wait()
        except (RuntimeError, MemoryError, ValueError) as failed:
            self.line(what, failed=advice(failed) if out_of_memory(failed) else str(failed)[:200])
            return
        seconds = time.perf_counter() - start
        peak = torch.cuda.max_memory_allocated() if self.device.type == "cuda" else peak_memory() or 0
        self.line(what, **{"seconds": seconds, "peak": float(peak), **found})


def stages(seen: dict[str, list[float]]) -> Callable[[str, int, int], None]:
    """A Progress that keeps when each stage was told of."""
    return lambda stage, done, total: seen.setdefault(stage, []).append(time.perf_counter())


def measure(part: str, toy: bool) -> None:
    """One part, in this process."""
    device = accelerator(toy)
    name, bits, _ = part.partition(" on four bits")
    meter = Meter(part, device)
    with meter.work("load") as found:
        pipe = build(name, device, toy)
        if bits:
            pipe.pipe.transformer = four_bits(pipe.pipe.transformer)
        net = denoiser(pipe)[1]
        found["weights"] = float(sum(weight.numel() * weight.itemsize for weight in net.parameters()))
    call = conditions(pipe, ["a church"], answered=False)
    if not bits:
        rows(meter, net, call, 1 if toy else 3)
    settings = TOY if toy else {} if name == "SD 1.4" else FEWER
    methods: list[Any] = [LoRA] if name.startswith("FLUX") else [Hybrid, LoRA]
    for method in methods:
        seen: dict[str, list[float]] = {}
        shown = {key: settings[key] for key in ("updates", "runs", "preserve_words") if key in settings}
        with meter.work("LoRA" if method is LoRA else "erase", **shown) as found:
            method(**settings)(pipe, unsee.Concept("church"), progress=stages(seen))
            found |= {f"{stage} s": times[-1] - times[0] for stage, times in seen.items()}
    shots = [Shot("a church", seed) for seed in range(2 if toy else 8)]
    with meter.work("evaluate", pictures=len(shots)):
        render(pipe, shots, Sampling(2 if toy else 20, 3.0), batch=8)


def rows(meter: Meter, net: Any, call: Any, times: int) -> None:
    """One row forward, and one forward and backward with gradients for the default's weights."""
    with torch.no_grad():
        error(net, call)  # the first call of each kind is slow
        with meter.work("row forward") as found:
            for _ in range(times):
                error(net, call)
            meter.wait()
            start = time.perf_counter()
            error(net, call)
            meter.wait()
            found["seconds"] = time.perf_counter() - start
    weights = select(net, "cross-kv")
    for weight in weights.values():
        weight.requires_grad_(True)
    with meter.work("row forward and backward") as found:
        for _ in range(2):
            meter.wait()
            start = time.perf_counter()
            error(net, call).sum().backward()  # type: ignore[no-untyped-call]
            meter.wait()
            found["seconds"] = time.perf_counter() - start
    for weight in weights.values():
        weight.requires_grad_(False)
        weight.grad = None


def table(results: list[dict[str, Any]], about: list[str]) -> str:
    """Results as Markdown."""
    lines = ["# What erasing costs on this card", "", *about, ""]
    lines += ["| model | what | seconds | peak memory | of it |", "|---|---|---:|---:|---|"]
    known = {(one["part"], one["what"]): one for one in results}
    for one in results:
        if "failed" in one:
            lines.append(f"| {one['part']} | {one['what']} | | | {one['failed']} |")
            continue
        rest = {key: value for key, value in one.items() if key not in ("part", "what", "seconds", "peak")}
        said = [f"{key} {f'{n / 1e9:.2f} GB' if key == 'weights' else f'{n:.3g}'}" for key, n in rest.items()]
        lines.append(
            f"| {one['part']} | {one['what']} | {one['seconds']:.3f} | {one['peak'] / 1e9:.2f} GB | {', '.join(said)} |"
        )
        if one["what"] == "row forward and backward" and (forward := known.get((one["part"], "row forward"))):
            loop = 1000 * ((25 * 2 + 3) * forward["seconds"] + one["seconds"])
            lines.append(f"| {one['part']} | the authors' loop, counted | {loop:.0f} | | 1000 updates |")
            bare = 12 * 16 * one["seconds"]
            lines.append(f"| {one['part']} | bare training, counted | {bare:.0f} | | by default, 12 updates of 16 |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="all parts together")
    parser.add_argument("--out", type=Path, default=Path("gpu.md"))
    parser.add_argument("--toy", action="store_true", help="narrow models on a CPU")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        measure(options.part, options.toy)
        return
    device = accelerator(options.toy)
    end = time.monotonic() + 60 * options.minutes
    lacking = [name for name in WHEELS if importlib.util.find_spec(name) is None]
    about = [f"Card: {card(device)}. torch {torch.__version__}, random weights{', toys' if options.toy else ''}."]
    about += [
        f"{name} is lacking, so {WHEELS[name]} were left out: pip install --no-index --find-links FOLDER {name}"
        for name in lacking
    ]
    print("\n".join(about), flush=True)
    results: list[dict[str, Any]] = []
    for part in options.only:
        if "four bits" in part and "bitsandbytes" in lacking:
            continue
        limit = min(PARTS[part], end - time.monotonic())
        command = [sys.executable, "-m", "benchmarks.gpu", "--part", part, *(["--toy"] if options.toy else [])]
        with tempfile.TemporaryFile("w+") as kept:
            try:
                subprocess.run(command, stdout=kept, env=os.environ, timeout=max(1, limit), check=False)
                note = ""
            except subprocess.TimeoutExpired:
                note = f"stopped after {limit:.0f} s"
            kept.seek(0)
            found = [json.loads(line) for line in kept if line.startswith('{"part"')]
        results += found
        if note or not found:
            results.append({"part": part, "what": "the rest", "failed": note or "it ended with an error, see above"})
        options.out.write_text(table(results, about), encoding="utf-8")
    print(options.out.read_text(encoding="utf-8") if options.out.exists() else "nothing was measured")


if __name__ == "__main__":
    main()
