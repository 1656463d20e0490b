"""What erasing costs on a U-Net of Stable Diffusion 1.4's size, in time and in memory.

    python -m benchmarks.large [--latent 64] [--updates 3]

The U-Net has the stock configuration and random weights, in float32; latents are 64 x 64. Each part is a process of its
own, one row a call, so that it fits a laptop:

    inference   drawing one guided picture, one step: its resident peak
    bare        forward and backward of two rows, with gradients for what ESD-x trains
    esd         ESD-x of as many updates of two rows; again with activation checkpointing
    words       one prompt's input of the layers that read it, which a call is made for and broken off

An erasing by the defaults makes more calls than it learns from: it records runs, and hears words. How many rows of
each it takes for one learned row is counted on the miniature, and does not depend on the model. So one update, with
its share of recording and hearing, is compared with a bare one: prints seconds a row, resident peaks, ratios.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter, defaultdict
from statistics import median
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

import unsee
from unsee.denoising.activations import second_moments
from unsee.denoising.record import Runs, record
from unsee.denoising.rows import single_rows, stack
from unsee.fit.monitor import error
from unsee.methods.hybrid import Hybrid
from unsee.models.weights import select
from unsee.runs.erase import peak_memory

PARTS = ("inference", "bare", "esd", "esd, checkpointing", "words")


def pipeline(latent: int) -> Any:
    """Stable Diffusion 1.4's U-Net with random weights; the smallest of everything else."""
    torch.manual_seed(0)
    tokenizer = unsee.load("mini").tokenizer
    unet = UNet2DConditionModel(
        sample_size=latent, cross_attention_dim=768, attention_head_dim=8, block_out_channels=(320, 640, 1280, 1280)
    )
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=768, intermediate_size=64, num_hidden_layers=1, num_attention_heads=12,
        max_position_embeddings=tokenizer.model_max_length,
    )  # fmt: skip
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=4,
        block_out_channels=(8, 8, 8, 8), norm_num_groups=4,
    )  # fmt: skip
    pipe: Any = StableDiffusionPipeline(
        vae, CLIPTextModel(text), tokenizer, unet, DDIMScheduler(steps_offset=1, clip_sample=False), None, None,
        requires_safety_checker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        part.eval().requires_grad_(False)
    pipe.unet.to(memory_format=torch.channels_last)
    return pipe


class Clock:
    """Watches a method: the seconds between the first and the last report of each stage, and what was done in them."""

    def __init__(self) -> None:
        self.seen: dict[str, list[tuple[float, int]]] = defaultdict(list)

    def __call__(self, stage: str, done: int, total: int) -> None:
        self.seen[stage].append((time.perf_counter(), done))

    def each(self, stage: str) -> float:
        (start, first), *_, (end, last) = self.seen[stage]
        return (end - start) / (last - first)


def measure(part: str, latent: int, updates: int) -> dict[str, float]:
    """Seconds a row and the peak of one part, alone in its process."""
    pipe, found, concept = pipeline(latent), {}, unsee.Concept("church")
    layers = [name.removesuffix(".weight") for name in select(pipe.unet, "cross-kv")]
    esd = Hybrid(
        select="cross", updates=updates, batch=1, runs=1, keep_runs=1, record_steps=3, held_out=0,
        preserve_words=0, context_words=0,
        gradient_checkpointing=part.endswith("checkpointing"),
    )  # fmt: skip
    if part == "inference":
        pipe("church", num_inference_steps=1, output_type="latent")
    elif part == "words":
        seconds = []
        for count in (2, 12):  # the first call of each is spent on finding out what reads the same
            start = time.perf_counter()
            second_moments(pipe, [f"a {k}" for k in range(count)], layers, batch=1)
            seconds.append(time.perf_counter() - start)
        found["heard"] = (seconds[1] - seconds[0]) / 10
    elif part == "bare":
        (step, *_) = record(pipe, ["church"], seeds=[0], runs=Runs(2), at=[0])
        rows = stack([*single_rows(step.concept), *single_rows(step.null)])
        for weight in select(pipe.unet, "cross").values():
            weight.requires_grad_(True)
        seconds = []
        for _ in range(updates):
            start = time.perf_counter()
            error(pipe.unet, rows).mean().backward()  # type: ignore[no-untyped-call]
            pipe.unet.zero_grad()
            seconds.append((time.perf_counter() - start) / 2)
        found["bare"] = median(seconds)
    else:
        clock = Clock()
        esd(pipe, concept, progress=clock)
        found |= {"learned": clock.each("fit") / 2, "recorded": clock.each("keep") / 2}
    return found | {"peak": float(peak_memory() or 0)}


def counted() -> Counter[str]:
    """Rows that an erasing by the defaults learns from, records, and begins in order to hear a word."""
    pipe, rows = unsee.load("mini"), Counter[str]()

    def begun(net: Any, arguments: Any, options: dict[str, Any]) -> None:
        rows["begun"] += len((arguments or list(options.values()))[0])

    def done(net: Any, arguments: Any, output: Any) -> None:
        rows["learned" if torch.is_grad_enabled() else "recorded"] += len(output[0])

    pipe.unet.register_forward_pre_hook(begun, with_kwargs=True)
    pipe.unet.register_forward_hook(done)
    Hybrid()(pipe, unsee.Concept("church"))
    rows["heard"] = rows.pop("begun") - rows["learned"] - rows["recorded"]
    return rows


def measures(latent: int = 64, updates: int = 3) -> dict[str, float]:
    rows = counted()
    print(", ".join(f"{count} rows {what}" for what, count in rows.items()), flush=True)
    found = {}
    # glibc keeps freed blocks of up to 32 MB for later, and they count as resident; these go back at once
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**20)}
    for part in PARTS:
        command = [sys.executable, "-m", "benchmarks.large", "--part", part]
        command += ["--latent", str(latent), "--updates", str(updates)]
        output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        found[part] = json.loads(output.splitlines()[-1])
        seconds = ", ".join(f"{key} {value:.2f} s" for key, value in found[part].items() if key != "peak")
        print(f"{part:<20} {found[part]['peak'] / 1e9:6.2f} GB  {seconds}", flush=True)
    told = {}
    for part in ("esd", "esd, checkpointing"):
        one, bare = found[part], found["bare"]["bare"]
        peak = one["peak"] / found["inference"]["peak"]
        shares = [
            one["learned"] / bare,
            rows["recorded"] / rows["learned"] * one["recorded"] / bare,
            rows["heard"] / rows["learned"] * found["words"]["heard"] / bare,
        ]
        print(
            f"{part}: one update over a bare one {sum(shares):.2f} = learned {shares[0]:.2f} + recorded "
            f"{shares[1]:.2f} + heard {shares[2]:.2f}; peak memory over inference {peak:.2f}"
        )
        told |= {f"an update, {part}": sum(shares), f"memory, {part}": peak}
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latent", type=int, default=64)
    parser.add_argument("--updates", type=int, default=3)
    parser.add_argument("--part", choices=PARTS)
    options = parser.parse_args()
    if options.part:
        print(json.dumps(measure(options.part, options.latent, options.updates)))
        return
    measures(options.latent, options.updates)


if __name__ == "__main__":
    main()
