"""The parts of a denoiser: selections of its weights, and places at which its layers can be patched."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import nn

from unsee.denoising.calls import Call
from unsee.denoising.trace import Place, activations
from unsee.errors import InputError
from unsee.models.weights import own_parameters

ALL = "all"
JOINT, SINGLE = r"^(joint_)?transformer_blocks\.\d+", r"^single_transformer_blocks\.\d+"
UNET = r"\battentions\.\d+\.transformer_blocks\.\d+"
_TEXT = r"attn\.(add_|to_add|norm_added)|ff_context\.|norm\d_context\."
_ENTRY = r"^(context_embedder|txt_in)\."
SELECTIONS = {
    "text embedder": _ENTRY,
    "text keys and values": rf"{JOINT}\.attn\.add_[kv]_proj\.",
    "text queries": rf"{JOINT}\.attn\.add_q_proj\.",
    "text attention's output": rf"{JOINT}\.attn\.to_add_out\.",
    "text MLP": rf"{JOINT}\.ff_context\.",
    "text modulation": rf"{JOINT}\.norm\d_context\.",
    "text stream": rf"{_ENTRY}|{JOINT}\.({_TEXT})",
    "image keys and values": rf"{JOINT}\.attn\.to_[kv]\.",
    "image queries": rf"{JOINT}\.attn\.to_q\.",
    "image attention's output": rf"{JOINT}\.attn\.to_out\.",
    "image MLP": rf"{JOINT}\.ff\.",
    "image stream": rf"{JOINT}\.(?!{_TEXT})",
    "single blocks, attention": rf"{SINGLE}\.attn\.",
    "single blocks, MLP": rf"{SINGLE}\.ff\.",
    "single blocks": rf"{SINGLE}\.",
    "cross-attention keys and values": rf"{UNET}\.attn2\.to_[kv]\.",
    "cross-attention queries": rf"{UNET}\.attn2\.to_q\.",
    "cross-attention": rf"{UNET}\.attn2\.",
    "self-attention": rf"{UNET}\.attn1\.",
    "MLP": rf"{UNET}\.ff\.",
    "convolutions": r"\bresnets\.",
}
"""Patterns of parameter names of transformers with joint attention, and of U-Nets with cross-attention."""


def blocks(net: nn.Module) -> list[str]:
    """The names of a denoiser's blocks: the items of its lists of modules, and a U-Net's middle."""
    lists = [(name, child) for name, child in net.named_children() if isinstance(child, nn.ModuleList)]
    found = [f"{name}.{k}" for name, child in lists for k in range(len(child))]
    middle = ["mid_block"] if hasattr(net, "mid_block") else []
    down = [name for name in found if name.startswith("down_blocks")]
    return [*down, *middle, *found[len(down) :]]


def short(block: str) -> str:
    """ "single_transformer_blocks.2" as "single 2"."""
    name, _, number = re.sub(r"_(transformer_)?blocks?", "", block).partition(".")
    return f"{name} {number}".strip()


def selections(net: nn.Module) -> dict[str, str]:
    """Patterns that match something, each set of parameters once: parts, single blocks, everything."""
    names = list(own_parameters(net))
    wanted = SELECTIONS | {short(block): rf"^{re.escape(block)}\." for block in blocks(net)} | {ALL: r"."}
    found: dict[frozenset[str], str] = {}
    for title, pattern in wanted.items():
        if chosen := frozenset(name for name in names if re.search(pattern, name)):
            found.setdefault(chosen, title)
    return {title: wanted[title] for title in found.values()}


@dataclass(frozen=True)
class Kind:
    """A kind of layer: in a joint block, and in a single block where text and picture are one sequence.

    joint, single  the module's name in its block, "" for the block itself
    part           which of the tensors that the joint one returns
    text           whether it is the text's side
    """

    joint: str
    single: str
    part: int | None
    text: bool


KINDS = {
    "text keys": Kind("attn.add_k_proj", "attn.to_k", None, True),
    "text values": Kind("attn.add_v_proj", "attn.to_v", None, True),
    "text attention": Kind("attn", "attn", 1, True),
    "text MLP": Kind("ff_context", "ff", None, True),
    "text after the block": Kind("", "", 0, True),
    "image attention": Kind("attn", "attn", 0, False),
    "image MLP": Kind("ff", "ff", None, False),
    "image after the block": Kind("", "", 1, False),
}
LAYERS = {
    "cross-attention keys": r"attn2\.to_k$", "cross-attention values": r"attn2\.to_v$",
    "cross-attention": r"attn2$", "self-attention": r"attn1$", "MLP": r"transformer_blocks\.\d+\.ff$",
    "convolutions": r"resnets\.\d+$",
}  # fmt: skip
"""Of a U-Net, by the end of the module's name."""

Places = dict[str, dict[str, tuple[Place, ...]]]
"""By kind and block."""


def places(net: nn.Module, call: Call) -> Places:
    """Where a denoiser can be patched, and all blocks of a kind together under ALL.

    call  any call of the denoiser; it tells how many tokens the text has
    Raises InputError for a denoiser that is neither a U-Net nor has joint blocks named as in AuraFlow.
    """
    names = blocks(net)
    joint = [name for name in names if re.search(rf"{JOINT}$", name)]
    found: Places = {}
    if joint:
        single = [name for name in names if re.search(rf"{SINGLE}$", name)]
        first = Place(joint[0], part=0)
        text = activations(net, call, [first])[first].shape[1]
        for title, kind in KINDS.items():
            found[title] = dict(_joint(net, kind, joint, single, text))
    else:
        modules = [name for name, _ in net.named_modules()]
        for title, end in LAYERS.items():
            for block in names:
                some = [name for name in modules if name.startswith(f"{block}.") and re.search(rf"\b{end}", name)]
                if some:
                    found.setdefault(title, {})[block] = tuple(map(Place, some))
    if not any(found.values()):
        raise InputError(f"{type(net).__name__} is not supported: its layers have other names")
    return {
        title: {**by, ALL: tuple(place for some in by.values() for place in some)} for title, by in found.items() if by
    }


def _joint(
    net: nn.Module, kind: Kind, joint: list[str], single: list[str], text: int
) -> Iterator[tuple[str, tuple[Place, ...]]]:
    modules = {name for name, _ in net.named_modules()}
    for block in joint:
        layer = f"{block}.{kind.joint}".rstrip(".")
        if layer in modules:
            yield block, (Place(layer, kind.part),)
    tokens = (0, text) if kind.text else (text, 1 << 30)
    for block in single:
        layer = f"{block}.{kind.single}".rstrip(".")
        if layer in modules:
            yield block, (replace(Place(layer), tokens=tokens),)
