"""Which weights an edit may change, and how to put others in their place for a while."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple
from weakref import WeakKeyDictionary

from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.utils.weak import WeakTensorKeyDictionary

from unsee.errors import InputError, unknown

SELECTIONS = ("cross", "cross-kv", "self", "noncross", "all")
"""The selections of the ESD paper (Sec. 4.1), with their counts in Stable Diffusion 1.4:

    cross     ESD-x: what a prompt names (styles, objects, people)            43.96 M of 859.5 M
    cross-kv  ESD-x-strict: the two projections that read the text            19.17 M
    self      self-attention                                                  49.57 M
    noncross  ESD-u: all but cross-attention; what appears unnamed (nudity)  815.56 M
    all       everything                                                     859.52 M

The authors' present code leaves normalisation layers out of ESD-u; their first code leaves out the time embedding
and the output layer instead. Here "noncross" is what it says.
"""


class Blocks(NamedTuple):
    """How a kind of denoiser takes in the prompt: patterns of parameter names for "cross-kv" and "cross"."""

    kv: str
    cross: str


_ENTRY = r"\b(context_embedder|txt_in|cap_embedder|caption_embedder|text_proj)\."

BLOCKS = (
    Blocks(kv=r"\battn2\.to_[kv]\.", cross=r"\battn2\."),
    Blocks(
        kv=_ENTRY,
        cross=rf"{_ENTRY}|\b(attn1?|attention)\.((add_[qkv]|txt_kv)_proj|to_add_out|norm_added_[qk])\."
        r"|\b(context_refiner|text_fusion)\.",
    ),
)
"""What the words mean for a denoiser: the first kind of which it has a parameter, in this order.

    cross-attention    (UNets, PixArt, Sana, Wan) as in the paper: attn2 is cross-attention, attn1 self-attention
    joint attention    (SD 3, FLUX, Chroma, Qwen-Image) text and picture attend to each other, each with weights of its
                       own. "cross" is all of the text's side of attention, and the embedder by which the prompt enters.
                       Single-stream blocks, where FLUX has them, mix both in one set of weights: "self"
    single stream      (Z-Image, Lumina2, Krea2) no weights but those before the streams meet belong to the prompt:
                       "cross" is the embedder and the refiner that works on the text alone

Of both last "cross-kv" is the embedder: with a closed form there, a fit takes a sixth of the time that it takes with
the text's keys and values, removes as much, and takes fewer other words along (mini-flow, docs/LOG.md).

Feed-forward and modulation layers are "noncross" everywhere. Of a denoiser that has none of these names, the layers
that read the text are found by running it (text_layers.find_text): "cross-kv" is then where it enters, "cross" all.
"""

_ATTENTION = r"\b(attn\d?|(self_|cross_)?attention)\.|\battentions\.\d+\.(to|add)_"

_EMBEDDER = r"\b((context_embedder|txt_in|text_proj)\.(linear_1\.)?|(cap_embedder|caption_embedder)\.1\.)weight"

_READS_TEXT = re.compile(
    r"\battn2\.to_[kv]\.weight|\b(attn1?|attention)\.(add_[qkv]|txt_kv)_proj\.weight"
    rf"|{_EMBEDDER}|(^|\bcondition_embedder\.)text_embedder\.linear_\d\.weight"
    r"|\b(caption_projection|txt_in)\.linear_\d\.weight"
    r"|\b(context_refiner|text_fusion)\.(?!.*norm).*weight"
)


class TextLayers(NamedTuple):
    """The matrices that read the text, of a denoiser that no pattern here knows (see denoising.text_layers.find_text).

    text      those whose inputs are the prompt's tokens alone
    entrance  those of them through which it enters, none behind another
    """

    text: tuple[str, ...]
    entrance: tuple[str, ...]


_FOUND: WeakKeyDictionary[nn.Module, TextLayers] = WeakKeyDictionary()


def remember(denoiser: nn.Module, found: TextLayers) -> None:
    """Let the functions below know what was found out of a denoiser, as long as it lives."""
    _FOUND[denoiser] = found


def reads_text(parameter: str, denoiser: nn.Module) -> bool:
    """Whether a parameter is the matrix of a linear layer whose inputs are the prompt's tokens, one row for each.

    True for the text's own layers before and in attention; false where text and picture share a layer, and where
    a layer reads a summary of the prompt (pooled embeddings).
    """
    found = _FOUND.get(denoiser)
    return _READS_TEXT.search(parameter) is not None or (found is not None and parameter in found.text)


def text_input_weights(denoiser: nn.Module) -> dict[str, nn.Parameter]:
    """The matrices through which a prompt enters a denoiser, none behind another: what closed forms may change at once.

    Keys and values of cross-attention; where there is none, the embedder of the text. Of two in a row the second
    would read what the first has moved already. Raises InputError if there are none.
    """
    names, parameters = _text_input_names(denoiser), own_parameters(denoiser)
    found = names or (_FOUND[denoiser].entrance if denoiser in _FOUND else ())
    if not found:
        raise InputError(f"{type(denoiser).__name__} has no matrix known to read the prompt")
    return {name: parameters[name] for name in found}


def _text_input_names(denoiser: nn.Module) -> Sequence[str]:
    """The same by names alone."""
    names = [name for name in own_parameters(denoiser) if name.endswith("weight")]
    return [name for name in names if re.search(BLOCKS[0].kv, name)] or [n for n in names if re.search(_EMBEDDER, n)]


def known(denoiser: nn.Module) -> bool:
    """Whether it is known which of a denoiser's matrices read the text."""
    return bool(_text_input_names(denoiser)) or denoiser in _FOUND


def embedded(denoiser: nn.Module) -> bool:
    """Whether the prompt enters by an embedder, behind which its words meet, and not by keys and values of its own."""
    names = _text_input_names(denoiser)
    return bool(names) and not re.search(BLOCKS[0].kv, names[0])


def select(denoiser: nn.Module, selection: str) -> dict[str, nn.Parameter]:
    """The parameters of a denoiser that a selection names.

    selection  one of SELECTIONS, or a regular expression of your own that is searched for in parameter names, such
               as "up_blocks.*attn2": any text with a character of regular expressions, or that occurs in a name

    Raises InputError if it is unknown or matches nothing.
    """
    parameters = own_parameters(denoiser)
    if any(hasattr(module, "base_layer") for module in denoiser.modules()):
        warnings.warn(
            f"this {type(denoiser).__name__} has an adapter, which stays on: the weights below it are selected,"
            " and their edit also fits the model without the adapter",
            stacklevel=2,
        )
    chosen = _chosen(denoiser, selection)
    if not chosen and selection not in SELECTIONS and not set(selection) & set(r".^$*+?{}[]|()\\"):
        known = unknown("selection", selection, SELECTIONS)
        raise InputError(f"{known}, or a regular expression of parameter names")
    if not chosen:
        would = [other for other in SELECTIONS if _chosen(denoiser, other)]
        raise InputError(
            f"selection {selection!r} matches nothing in {type(denoiser).__name__}; these match: {', '.join(would)}"
        )
    return {name: parameters[name] for name in chosen}


def _chosen(denoiser: nn.Module, selection: str) -> list[str]:
    names = list(own_parameters(denoiser))

    def having(pattern: str) -> list[str]:
        return [name for name in names if re.search(pattern, name)]

    blocks = next((kind for kind in BLOCKS if having(kind.kv)), None)
    if blocks is None and denoiser in _FOUND:
        text, kv = _FOUND[denoiser]
        blocks = Blocks(kv=_layers(kv), cross=_layers(text))
    cross = having(blocks.cross) if blocks else []
    match selection:
        case "cross":
            return cross
        case "cross-kv":
            return having(blocks.kv) if blocks else []
        case "self":
            return [name for name in having(_ATTENTION) if name not in set(cross)]
        case "noncross":
            return [name for name in names if name not in set(cross)]
        case "all":
            return list(names)
    try:
        return having(selection)
    except re.error as error:
        raise InputError(f"selection {selection!r} is no name and no regular expression: {error}") from error


def _layers(matrices: Iterable[str]) -> str:
    """A pattern of all parameters of the layers that have these matrices; of none where there are none."""
    return "|".join("^" + re.escape(name.removesuffix("weight")) for name in matrices) or r"(?!)"


@contextmanager
def temporary_values(parameters: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]) -> Iterator[None]:
    """Within the context the parameters hold `values`; afterwards they hold the very tensors they held before.

    No bit is computed on the way back, so a model is exactly what it was, also after an exception. Contexts may be
    closed in any order: once all are, the model is what it was before the first.
    Raises InputError for weights that hold no other values: quantised ones, and ones stored in eight bits.
    """
    for name in values:
        if not is_full_precision(parameters[name]):
            raise InputError(
                f"{name} is quantised or stored in less than 16 bits ({parameters[name].dtype}): a change of such a "
                "weight is lost in rounding; load the model in bfloat16, or use lora, whose adapters stay beside it"
            )
    # What is spread over processes is gathered from a storage of FSDP's own, so numbers are put there and back.
    spread = {name for name in values if isinstance(parameters[name], DTensor)}
    mine = object()

    def put(name: str, value: Tensor) -> None:
        if name in spread:
            parameters[name].data.copy_(value)
        else:
            parameters[name].data = value

    try:
        for name, value in values.items():
            now = parameters[name].data
            _BELOW.setdefault(parameters[name], []).append((mine, now.clone() if name in spread else now))
            put(name, value)
        yield
    finally:
        for name in values:
            below = _BELOW.get(parameters[name], [])
            place = next((k for k, (whose, _) in enumerate(below) if whose is mine), None)
            if place is None:  # of values that could not be put
                continue
            _, before = below.pop(place)
            if place < len(below):  # closed before what was put on top of it: that is what leads to `before` now
                below[place] = (below[place][0], before)
            else:
                put(name, before)
            if not below:
                del _BELOW[parameters[name]]


_BELOW: MutableMapping[nn.Parameter, list[tuple[object, Tensor]]] = WeakTensorKeyDictionary()
"""For each parameter that holds other values for a while: who put them, and what was there before, the oldest first."""


def in_use(denoiser: nn.Module) -> bool:
    """Whether a denoiser holds other values than its own now, within `temporary_values`."""
    return any(parameter in _BELOW for parameter in denoiser.parameters())


def own_names(net: nn.Module, names: Iterable[str]) -> dict[str, str]:
    """The names of a network's own tensors, without those of peft's adapters: by the name without the adapter."""
    wrapped = tuple(f"{name}." for name, module in net.named_modules() if hasattr(module, "base_layer"))
    return {
        name.replace(".base_layer.", "."): name
        for name in names
        if ".base_layer." in name or not name.startswith(wrapped)
    }


def own_parameters(net: nn.Module) -> dict[str, nn.Parameter]:
    """A network's parameters without those of adapters that are on it, by the names that they have without those."""
    if isinstance(net, FSDPModule):
        net.reshard()  # after a pass its own weights are whole, in a storage that the next pass drops
    parameters = dict(net.named_parameters())
    return {own: parameters[name] for own, name in own_names(net, parameters).items()}


def is_full_precision(weight: nn.Parameter) -> bool:
    """Whether a weight is a tensor of torch's own (quantisers bring theirs) with 16 bits a number or more."""
    ours = all(type(part).__module__.split(".")[0] == "torch" for part in (weight, weight.data))
    return ours and weight.is_floating_point() and weight.itemsize >= 2
