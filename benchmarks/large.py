"""What an update costs on a U-Net of Stable Diffusion 1.4's size, in time and in memory.

    python -m benchmarks.large [--latent 64] [--updates 4]

The U-Net has the stock configuration and random weights, in float32; latents are 64 x 64. Compared are ESD-x, recording
included in its default proportion to updates (nine recorded rows for ten learned ones), and a bare forward and backward
of as many rows with gradients for the same weights; and the peak memory of one such update over drawing one guided
picture. Each is a process of its own. Prints seconds, resident peaks, and the two ratios, all of one run.
"""

import argparse
import json
import subprocess
import sys
import time
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

import unsee
from unsee.api import peak_memory
from unsee.fit import error
from unsee.layers import select
from unsee.methods.esd import ESD
from unsee.recorder import record, single, stack

PARTS = ("loaded", "inference", "bare", "esd", "esd, checkpointing")


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


def measure(part: str, latent: int, updates: int) -> dict[str, float]:
    """Seconds and peak of one part, alone in its process."""
    pipe = pipeline(latent)
    esd = ESD(
        select="cross", updates=updates, batch=1, runs=1, keep_runs=1, steps=2, held_out=0, spared=0,
        checkpointing=part.endswith("checkpointing"),
    )  # fmt: skip
    rows = []
    if part == "bare":
        (step, *_) = record(pipe, ["church"], seeds=[0], steps=2, at=[0])
        rows = [stack([*single(step.concept), *single(step.null)])] * updates
    start = time.perf_counter()
    if part == "inference":
        pipe("church", num_inference_steps=1, output_type="latent")
    elif part == "bare":
        for weight in select(pipe.unet, "cross").values():
            weight.requires_grad_(True)
        for call in rows:
            error(pipe.unet, call).mean().backward()  # type: ignore[no-untyped-call]
            pipe.unet.zero_grad()
    elif part.startswith("esd"):
        esd(pipe, unsee.Concept("church"))
    return {"seconds": time.perf_counter() - start, "peak": float(peak_memory() or 0)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latent", type=int, default=64)
    parser.add_argument("--updates", type=int, default=4)
    parser.add_argument("--part", choices=PARTS)
    options = parser.parse_args()
    if options.part:
        print(json.dumps(measure(options.part, options.latent, options.updates)))
        return
    found = {}
    for part in PARTS:
        command = [sys.executable, "-m", "benchmarks.large", "--part", part]
        command += ["--latent", str(options.latent), "--updates", str(options.updates)]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found[part] = json.loads(output.splitlines()[-1])
        print(f"{part:<20} {found[part]['seconds']:7.1f} s {found[part]['peak'] / 1e9:6.2f} GB", flush=True)
    for part in ("esd", "esd, checkpointing"):
        seconds, peak = (found[part][key] / found[to][key] for key, to in (("seconds", "bare"), ("peak", "inference")))
        print(f"{part}: time of an update over a bare one {seconds:.2f}, peak memory over inference {peak:.2f}")


if __name__ == "__main__":
    main()
