"""Fine-tuning for attacks: plain denoising on pictures, of all weights, of keys and values, or of low-rank adapters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraModel
from torch import nn

from unsee.attacks.context import AttackContext
from unsee.denoising.replay import replay
from unsee.fit.loop import trainable
from unsee.fit.search import Rows, descend, groups
from unsee.models.denoisers import denoiser
from unsee.models.weights import embedded, select

LORA = "lora"
RANK = 4
ADAPTER = "attack"


def called(context: AttackContext, group: str) -> str:
    """What the weights of a group are called in a report."""
    reads = "the text's embedder" if embedded(denoiser(context.pipe)[1]) else "keys and values"
    return {"all": "all weights", "cross-kv": reads, LORA: "LoRA"}[group]


def tuned(context: AttackContext, group: str, rows: Rows, looks: Sequence[int]) -> Iterator[int]:
    """Adam on the attacked model's weights, at a constant rate; yields the updates made, with the weights in place.

    group  "all", "cross-kv", or LORA: adapters on the layers of "cross"
    """
    _, net = denoiser(context.pipe)
    with _learned(net, group, context.seed) as weights:
        adam = torch.optim.Adam(groups(net, weights, rows(torch.Generator().manual_seed(0))))
        rng = torch.Generator().manual_seed(context.seed)
        context.start()
        yield from descend(adam, partial(replay, net), rows, looks, rng)


@contextmanager
def _learned(net: nn.Module, group: str, seed: int) -> Iterator[dict[str, nn.Parameter]]:
    """Within the context some weights take gradients; afterwards the network is what it was."""
    if group != LORA:
        weights = select(net, group)
        with trainable(weights):
            yield weights
        return
    names = [
        name.removesuffix(".weight")
        for name in select(net, "cross")
        if name.endswith(".weight") and isinstance(net.get_submodule(name.removesuffix(".weight")), nn.Linear)
    ]
    before = {name: net.get_submodule(name) for name in names}
    learning = [one for one in net.parameters() if one.requires_grad]
    pattern = "|".join(name.replace(".", r"\.") for name in names)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            LoraModel(net, LoraConfig(r=RANK, lora_alpha=RANK, target_modules=pattern), ADAPTER)
        yield {name: one for name, one in net.named_parameters() if ".lora_" in name}
    finally:
        for name, module in before.items():
            net.set_submodule(name, module)
        if hasattr(net, "peft_config"):
            del net.peft_config
        for one in learning:
            one.requires_grad_(True)
