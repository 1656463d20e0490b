"""What erasing takes on a card: bytes of SDXL's and FLUX.1's denoisers, counted and not measured.

    python -m benchmarks.cards [--rows 2] [--rank 4]

The denoisers have their stock configurations, in bfloat16, as fake tensors: shapes without numbers. One update of so
many rows (half to erase, half to keep) is run on them, and what autograd keeps for the way back is added up. To that
come the weights; and for each number that is trained a master in float32, the frozen one in bfloat16, a gradient and a
momentum, 14 bytes in all, 12 for an adapter's, which has no frozen one. With checkpointing it is the inputs of all
blocks, and what the largest block keeps while it is computed again. Four bits are those of NF4 with its scales
quantised too, 4.127 a weight (QLoRA, arXiv:2305.14314), which adapters can stand on. Not counted: the text encoders,
which have answered by then and may be moved away, and what a kernel needs for itself.
"""

import argparse
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import FluxTransformer2DModel, UNet2DConditionModel
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from unsee.layers import select
from unsee.methods.lora import LoRA

SDXL: dict[str, Any] = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
"""The denoiser of stabilityai/stable-diffusion-xl-base-1.0."""


def sdxl(rows: int) -> tuple[Any, dict[str, Any]]:
    added = {"text_embeds": torch.randn(rows, 1280), "time_ids": torch.randn(rows, 6)}
    text = {"encoder_hidden_states": torch.randn(rows, 77, 2048), "added_cond_kwargs": added}
    return UNet2DConditionModel(**SDXL), {
        "sample": torch.randn(rows, 4, 128, 128),
        "timestep": torch.ones(rows),
        **text,
    }


def flux(rows: int) -> tuple[Any, dict[str, Any]]:
    """FLUX.1-dev, whose configuration is the class's own but for the guidance; 1024 x 1024 pixels, 512 tokens."""
    text = {"encoder_hidden_states": torch.randn(rows, 512, 4096), "pooled_projections": torch.randn(rows, 768)}
    places = {"img_ids": torch.zeros(4096, 3), "txt_ids": torch.zeros(512, 3)}
    return FluxTransformer2DModel(guidance_embeds=True), {
        "hidden_states": torch.randn(rows, 4096, 64),
        "timestep": torch.ones(rows),
        "guidance": torch.ones(rows),
        **text,
        **places,
    }


class Kept:
    """A tensor that autograd keeps, counted from when it is kept until nothing holds it."""

    def __init__(self, ledger: "Ledger", tensor: Tensor) -> None:
        self.ledger, self.bytes = ledger, tensor.untyped_storage().nbytes()
        ledger.now += self.bytes

    def __del__(self) -> None:
        self.ledger.now -= self.bytes


class Ledger:
    """Bytes that autograd keeps, weights aside; of tensors that share memory, once."""

    def __init__(self, net: nn.Module) -> None:
        self.now = 0
        self.weights = {place(weight) for weight in net.parameters()}
        self.known: dict[int, weakref.ref[Kept]] = {}

    def pack(self, tensor: Tensor) -> tuple[Tensor, Kept | None]:
        if place(tensor) in self.weights:
            return tensor, None
        known = self.known.get(place(tensor))
        kept = (known and known()) or Kept(self, tensor)
        self.known[place(tensor)] = weakref.ref(kept)
        return tensor, kept


def place(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


@contextmanager
def watched(net: nn.Module, ledger: Ledger) -> Iterator[list[int]]:
    """What each block keeps."""
    found: list[int] = []
    before: list[int] = []
    blocks = [m for m in net.modules() if "TransformerBlock" in type(m).__name__ or "Resnet" in type(m).__name__]
    handles = [block.register_forward_pre_hook(lambda *_: before.append(ledger.now)) for block in blocks]
    handles += [block.register_forward_hook(lambda *_: found.append(ledger.now - before.pop())) for block in blocks]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def kept(net: nn.Module, arguments: dict[str, Any]) -> tuple[int, int]:
    """Bytes kept for the way back of one call, and those of the largest block."""
    ledger = Ledger(net)
    with torch.autograd.graph.saved_tensors_hooks(ledger.pack, lambda pair: pair[0]), watched(net, ledger) as each:
        output = net(**arguments).sample
        return (ledger.now, max(each)) if output.requires_grad else (0, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--rank", type=int, default=4)
    options = parser.parse_args()
    torch.set_default_dtype(torch.bfloat16)
    print("| denoiser, trained | weights | numbers trained | their state | kept | kept with checkpointing ", end="")
    print("| all | all with checkpointing | on four bits |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, build in (("SDXL", sdxl), ("FLUX.1-dev", flux)):
        for method in ("cross-kv", "cross", "LoRA on cross-kv"):
            with FakeTensorMode():
                net, arguments = build(options.rows)
                total = 2 * sum(weight.numel() for weight in net.parameters())
                selection = method.removeprefix("LoRA on ")
                chosen = select(net, selection)
                count = sum(weight.numel() for weight in chosen.values())
                state = 14 * count
                if method != selection:
                    chosen = LoRA(select=selection).weights(net)
                    count = sum(options.rank * (len(weight) + weight[0].numel()) for weight in chosen.values())
                    state = 12 * count
                net.train().requires_grad_(False)
                for weight in chosen.values():
                    weight.requires_grad_(True)
                whole, block = kept(net, arguments)
                net.enable_gradient_checkpointing()
                fewer = kept(net, arguments)[0] + block
            sums = [total + state + whole, total + state + fewer]
            if method != selection:
                sums.append(total * 4.127 / 16 + state + fewer)
            size = [f"{number / 1e9:.2f} GB" for number in (state, whole, fewer, *sums)] + [""] * (3 - len(sums))
            print(f"| {name}, {method} | {total / 1e9:.2f} GB | {count / 1e6:.1f} M | {' | '.join(size)} |", flush=True)


if __name__ == "__main__":
    main()
