"""What erasing takes on a card: bytes of SD 1.4's, SDXL's and FLUX.1's denoisers, counted and not measured.

    python -m benchmarks.cards [--rank 4] [--only sd14 sdxl flux]

The denoisers have their stock configurations, in bfloat16, as fake tensors: shapes without numbers. What autograd keeps
of one row is added up (unsee.room.kept), and so is the most that lives while a row is drawn without gradients. To that
come the weights; for each number that is trained its copy in bfloat16, and a master, a gradient and a momentum in
float32, 14 bytes in all; 12 for an adapter's, which has no copy; and for each text that is read two second
moments and a root in float64, and its inverse in float32. An update of the default has 16 rows. Four bits are
those of NF4 with its scales quantised too, 4.127 a weight (QLoRA, arXiv:2305.14314), which adapters can stand on.

The second table says what unsee.room would choose on cards of some sizes, from the same numbers: rows at once, "c" with
gradient checkpointing, "m" with masters in main memory, "-" where it does not fit. DRIVER is what a
card's driver takes. Text encoders and VAE are in main memory then. Not counted: what a kernel needs for itself.
"""

import argparse
import weakref
from typing import Any

import torch
from diffusers import FluxTransformer2DModel, UNet2DConditionModel
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.sized import FLUX, SD14, SDXL
from unsee.denoising.calls import Call
from unsee.fit.memory import SHARE, at_once, kept
from unsee.methods.hybrid import Hybrid
from unsee.methods.lora import LoRA
from unsee.models.weights import select

ROWS = 2 * Hybrid().batch
DRIVER = 0.5e9
CARDS = (6, 8, 12, 16, 24, 48, 80)
"""Gigabytes."""


def sd14(rows: int) -> tuple[Any, dict[str, Any]]:
    """512 x 512 pixels, 77 tokens."""
    text = {"encoder_hidden_states": torch.randn(rows, 77, 768)}
    return UNet2DConditionModel(**SD14), {"sample": torch.randn(rows, 4, 64, 64), "timestep": torch.ones(rows), **text}


def sdxl(rows: int) -> tuple[Any, dict[str, Any]]:
    """1024 x 1024 pixels, 77 tokens."""
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
    return FluxTransformer2DModel(**FLUX), {
        "hidden_states": torch.randn(rows, 4096, 64),
        "timestep": torch.ones(rows),
        "guidance": torch.ones(rows),
        **text,
        **places,
    }


DENOISERS = {
    "sd14": ("SD 1.4", sd14, ("cross-kv", "noncross", "LoRA on cross-kv"), (1, 768)),
    "sdxl": ("SDXL", sdxl, ("cross-kv", "noncross", "LoRA on cross-kv"), (1, 2048)),
    "flux": ("FLUX.1-dev", flux, ("cross-kv", "LoRA on cross-kv"), (19, 3072)),
}
"""Its name, what builds it, what is trained; how many different texts its layers read, and how wide those are."""


class Live(TorchDispatchMode):
    """Bytes of all that was made in this mode and still lives, and the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and (storage := tensor.untyped_storage())._cdata not in self.known:
                self.known[storage._cdata] = storage.nbytes()
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self.gone, storage._cdata)
        return out

    def gone(self, place: int) -> None:
        self.now -= self.known.pop(place)


def drawn(net: nn.Module, arguments: dict[str, Any]) -> int:
    """The most bytes that live, weights aside, while a call is answered without gradients."""
    live = Live()
    with torch.no_grad(), live:
        for weight in net.parameters():
            weight.view(-1)  # known from here on
        before = live.most = live.now
        net(**arguments)
    return live.most - before


def chosen(card: float, weights: float, copies: float, state: float, grads: float, row: float, fewer: float) -> str:
    """What unsee.room chooses where so many bytes are to be had."""
    there = card - DRIVER - weights - copies
    masters = state > there / 2
    left = there - (grads if masters else state)
    fits = row <= SHARE * left
    rows = min(ROWS, at_once(SHARE * left, row if fits else fewer))
    if (row if fits else fewer) > left:
        return "-"
    return f"{rows}{'' if fits else ' c'}{' m' if masters else ''}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--only", nargs="*", choices=DENOISERS, default=list(DENOISERS))
    options = parser.parse_args()
    torch.set_default_dtype(torch.bfloat16)
    print("| denoiser, trained | weights | numbers trained | their state | a row drawn | a row kept ", end="")
    print(f"| with checkpointing | {ROWS} rows | 1 row | 1 row, checkpointing | masters elsewhere | on four bits |")
    print("|---|" + "---:|" * 11)
    choices = []
    for key in options.only:
        name, build, methods, (texts, wide) = DENOISERS[key]
        for method in methods:
            with FakeTensorMode():
                net, arguments = build(1)
                total = 2.0 * sum(weight.numel() for weight in net.parameters())
                selection = method.removeprefix("LoRA on ")
                weights = LoRA(select=selection).weights(net) if method != selection else select(net, selection)
                lora = method != selection
                count = sum(
                    options.rank * (len(weight) + weight[0].numel()) if lora else weight.numel()
                    for weight in weights.values()
                )
                net.train().requires_grad_(False)
                line = drawn(net, arguments)
                for weight in weights.values():
                    weight.requires_grad_(True)
                call = Call({**arguments, "return_dict": False}, torch.empty(0))
                row, block = kept(net, call)
                net.enable_gradient_checkpointing()
                fewer = kept(net, call)[0] + block
            copies, state, grads = (0, 12 * count, 4 * count) if lora else (2 * count, 12 * count, 2 * count)
            copies += 0 if selection == "noncross" else 28 * texts * wide**2
            sums = [total + copies + state + n for n in (ROWS * row, row, fewer)]
            sums.append(total + copies + grads + fewer)
            if lora:
                sums.append(total * 4.127 / 16 + copies + state + fewer)
            size = [f"{number / 1e9:.2f} GB" for number in (copies + state, line, row, fewer, *sums)]
            size += [""] * (9 - len(size))
            print(f"| {name}, {method} | {total / 1e9:.2f} GB | {count / 1e6:.1f} M | {' | '.join(size)} |", flush=True)
            for what, base in (("", total), *((", four bits", total * 4.127 / 16),) * lora):
                found = [chosen(1e9 * card, base, copies, state, grads, row, fewer) for card in CARDS]
                choices.append(f"| {name}, {method}{what} | {' | '.join(found)} |")
    print("\n| rows at once on a card of | " + " | ".join(f"{card} GB" for card in CARDS) + " |")
    print("|---|" + "---:|" * len(CARDS))
    print("\n".join(choices))


if __name__ == "__main__":
    main()
