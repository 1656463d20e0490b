"""What ComfyUI and A1111 make of our files, by what their code says. Neither runs here.

ComfyUI, comfy/lora.py: `model_lora_keys_unet` maps names to tensors of its models; `load_lora` adds NAME.diff to the
tensor, or to its rows if several layers of diffusers are one of its own; it adds NAME.diff_b to the bias beside the
tensor, but loses it if the name stands for rows (the pair of a tensor's name and its rows is cut like a text). Names of
its own, diffusion_model.TENSOR, stand for a weight without that ending and for a bias with it.
A1111, extensions-builtin/Lora: networks.py and network_full.py.
"""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import unsee
from unsee.card import Card
from unsee.errors import InputError
from unsee.export import comfy
from unsee.export.foreign import adopt
from unsee.export.formats import FORMATS
from unsee.export.lowrank import low_rank
from unsee.pipelines import denoiser, fingerprint

zoo = pytest.importorskip("zoo")

ATTENTION = "attentions.0.transformer_blocks.0.attn2.to_k"
TEXT = "transformer_blocks.0.attn.add_{}_proj"
NAMES: dict[str, dict[str, tuple[str, str, tuple[int, int, int]]]] = {
    # comfy/utils.py unet_to_diffusers, UNET_MAP_RESNET, UNET_MAP_BASIC
    "sd": {
        f"mid_block.{ATTENTION}": (
            "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k",
            "middle_block.1.transformer_blocks.0.attn2.to_k",
            (0, 1, 1),
        ),
        "mid_block.resnets.1.time_emb_proj": (
            "lora_unet_mid_block_resnets_1_time_emb_proj",
            "middle_block.2.emb_layers.1",
            (0, 1, 1),
        ),
        "conv_norm_out": ("lora_unet_out_0", "out.0", (0, 1, 1)),
    },
    "sdxl": {"add_embedding.linear_1": ("lora_unet_label_emb_0_0", "label_emb.0.0", (0, 1, 1))},
    # mmdit_to_diffusers
    "sd3": {
        TEXT.format("k"): (f"transformer.{TEXT.format('k')}", "joint_blocks.0.context_block.attn.qkv", (1, 2, 3)),
        TEXT.format("v"): (f"transformer.{TEXT.format('v')}", "joint_blocks.0.context_block.attn.qkv", (2, 3, 3)),
        "transformer_blocks.1.attn.to_q": (
            "transformer.transformer_blocks.1.attn.to_q",
            "joint_blocks.1.x_block.attn.qkv",
            (0, 1, 3),
        ),
        "context_embedder": ("transformer.context_embedder", "context_embedder", (0, 1, 1)),
    },
    # flux_to_diffusers; model_base.py: Chroma and Flux2 are kinds of Flux
    "flux-dev": {
        TEXT.format("k"): (f"transformer.{TEXT.format('k')}", "double_blocks.0.txt_attn.qkv", (1, 2, 3)),
        "single_transformer_blocks.0.attn.to_v": (
            "transformer.single_transformer_blocks.0.attn.to_v",
            "single_blocks.0.linear1",
            (2, 3, 7),
        ),
        "single_transformer_blocks.0.proj_mlp": (
            "transformer.single_transformer_blocks.0.proj_mlp",
            "single_blocks.0.linear1",
            (3, 7, 7),
        ),
        "single_transformer_blocks.0.proj_out": (
            "transformer.single_transformer_blocks.0.proj_out",
            "single_blocks.0.linear2",
            (0, 1, 1),
        ),
    },
    "chroma": {TEXT.format("v"): (f"transformer.{TEXT.format('v')}", "double_blocks.0.txt_attn.qkv", (2, 3, 3))},
    "flux2-klein": {TEXT.format("k"): (f"transformer.{TEXT.format('k')}", "double_blocks.0.txt_attn.qkv", (1, 2, 3))},
    # lora.py, QwenImage: its own names are diffusers'
    "qwen-image": {TEXT.format("k"): (f"transformer.{TEXT.format('k')}", TEXT.format("k"), (0, 1, 1))},
    # z_image_to_diffusers
    "z-image": {
        "cap_embedder.1": ("transformer.cap_embedder.1", "cap_embedder.1", (0, 1, 1)),
        "layers.0.attention.to_v": ("transformer.layers.0.attention.to_v", "layers.0.attention.qkv", (2, 3, 3)),
    },
    # pixart_to_diffusers
    "pixart-sigma": {
        "transformer_blocks.0.attn2.to_v": (
            "transformer.transformer_blocks.0.attn2.to_v",
            "blocks.0.cross_attn.kv_linear",
            (1, 2, 2),
        )
    },
    # krea2_to_diffusers
    "krea2": {"txt_in.linear_2": ("transformer.txt_in.linear_2", "txtmlp.3", (0, 1, 1))},
}
"""By family: a layer in diffusers; its name in a file; ComfyUI's layer; which rows of it, as (first, after, of)."""


def comfyui(file: dict[str, torch.Tensor], names: dict[str, tuple[str, str, tuple[int, int, int]]]) -> dict[str, Any]:
    """What ComfyUI adds to its tensors: {tensor: {(first, after, of): difference}}."""
    known = {key: (f"{layer}.weight", rows) for key, layer, rows in names.values()}
    for _, layer, _ in names.values():
        known |= {f"diffusion_model.{layer}": (f"{layer}.weight", (0, 1, 1))}
        known |= {f"diffusion_model.{layer}.bias": (f"{layer}.bias", (0, 1, 1))}
    added: dict[str, Any] = {}
    for key, difference in file.items():
        name, _, mark = key.rpartition(".")
        assert name in known, f"lora key not loaded: {key}"
        tensor, rows = known[name]
        if mark == "diff":
            added.setdefault(tensor, {})[rows] = difference
        else:
            assert mark == "diff_b"
            assert rows == (0, 1, 1), f"a bias that ComfyUI loses: {key}"
            added.setdefault(tensor.removesuffix("weight") + "bias", {})[rows] = difference
    return added


def of_layers(pipe: Any, layers: list[str], kinds: tuple[str, ...] = ("weight", "bias")) -> unsee.Edit:
    key, net = denoiser(pipe)
    rng = torch.Generator().manual_seed(0)
    deltas = {
        f"{key}.{name}": torch.randn(weight.shape, generator=rng)
        for name, weight in net.named_parameters()
        if name.rpartition(".")[0] in layers and name.rpartition(".")[2] in kinds
    }
    return unsee.Edit(dict(deltas), Card("random", {}, (unsee.Concept("church"),), "zoo", fingerprint(net), 0, {}))


@pytest.mark.parametrize("family", NAMES)
def test_comfyui_finds_every_difference_where_it_belongs(family: str, tmp_path: Path) -> None:
    pipe = zoo.build(family)
    key, _ = denoiser(pipe)
    edit = of_layers(pipe, list(NAMES[family]))
    assert len(edit.deltas) >= len(NAMES[family])
    FORMATS["comfy"].write(edit, pipe, tmp_path / "out.safetensors")
    added = comfyui(load_file(tmp_path / "out.safetensors"), NAMES[family])
    for name, want in edit.deltas.items():
        layer, _, kind = name.removeprefix(f"{key}.").rpartition(".")
        _, own, (first, after, of) = NAMES[family][layer]
        found = added[f"{own}.{kind}"]
        if (first, after, of) in found:
            assert torch.equal(found[first, after, of], want)
        else:  # written whole, at its place among others
            (whole,) = found.values()
            size = len(whole) // of
            assert torch.equal(whole[first * size : after * size], want)
            mine = [n for n in edit.deltas if n.endswith(".bias") and NAMES[family][n[len(key) + 1 : -5]][1] == own]
            assert whole.count_nonzero() == sum(len(edit.deltas[n]) for n in mine), "rows of nobody"
    again = adopt(tmp_path / "out.safetensors", pipe)
    assert again.deltas.keys() == edit.deltas.keys()
    for name, want in edit.deltas.items():
        assert torch.equal(again.deltas[name], want)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", ["sana", "lumina2", "wan", "cogview3"])
def test_families_that_comfyui_has_no_names_for_are_refused(family: str, tmp_path: Path) -> None:
    """comfy/lora.py maps none of diffusers' names of Lumina 2 and Wan; Sana and CogView 3 it does not have."""
    pipe = zoo.build(family)
    _, net = denoiser(pipe)
    layer = next(name for name, part in net.named_modules() if isinstance(part, torch.nn.Linear))
    assert not comfy.reads(net)
    with pytest.raises(InputError, match="ComfyUI has no key for .*: export to pipeline or delta"):
        FORMATS["comfy"].write(of_layers(pipe, [layer]), pipe, tmp_path / "out.safetensors")


def test_a_weight_that_comfyui_has_no_name_for_is_refused(tmp_path: Path) -> None:
    pipe = zoo.build("krea2")
    with pytest.raises(InputError, match=r"no key for 'txt_in\.norm\.weight'"):
        FORMATS["comfy"].write(of_layers(pipe, ["txt_in.norm"]), pipe, tmp_path / "out.safetensors")


@pytest.mark.parametrize("shape", [(), (1,), (3, 2)])
def test_differences_of_other_shapes_are_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    for family, key in (
        ("sd", "lora_unet_conv_in.diff"),
        ("sd", "lora_unet_conv_in.diff_b"),
        ("flux-dev", "diffusion_model.double_blocks.0.txt_attn.qkv.bias.diff"),
    ):
        save_file({key: torch.ones(shape)}, tmp_path / "in.safetensors")
        with pytest.raises(InputError, match="shape"):
            adopt(tmp_path / "in.safetensors", zoo.build(family))


A1111 = (
    r"conv_in|conv_out|time_embedding_linear_[12]|(down|up)_blocks_\d_attentions_\d_.+|mid_block_attentions_0_.+"
    r"|((down|up)_blocks_\d|mid_block)_resnets_\d_(conv1|conv2|norm1|norm2|time_emb_proj|conv_shortcut)"
    r"|down_blocks_\d_downsamplers_0_conv|up_blocks_\d_upsamplers_0_conv"
    r"|out_0|label_emb_0_[02]"
)
"""Names after lora_unet_ that become a layer of A1111's models: networks.py, `convert_diffusers_name_to_compvis`, knows
the first three lines; the last are its own."""


@pytest.mark.parametrize("family", ["sd", "sdxl"])
@pytest.mark.parametrize("kinds", [("weight", "bias"), ("bias",)], ids=["all", "biases"])
def test_a1111_takes_every_layer(family: str, kinds: tuple[str, ...], tmp_path: Path) -> None:
    """`load_network` refuses a file in which a layer has parts that no kind takes; `ModuleTypeFull` asks for .diff."""
    pipe = zoo.build(family)
    edit = of_layers(pipe, [name for name, _ in pipe.unet.named_modules()], kinds)
    FORMATS["comfy"].write(edit, pipe, tmp_path / "out.safetensors")
    layers: dict[str, set[str]] = {}
    for key, difference in load_file(tmp_path / "out.safetensors").items():
        name, _, part = key.partition(".")
        assert name.startswith("lora_unet_")
        assert re.fullmatch(A1111, name.removeprefix("lora_unet_")), name
        layers.setdefault(name, set()).add(part)
        assert difference.any() or kinds == ("bias",)
    assert all("diff" in parts and parts <= {"diff", "diff_b"} for parts in layers.values())
    assert adopt(tmp_path / "out.safetensors", pipe).deltas.keys() == edit.deltas.keys()


@pytest.mark.parametrize("to", ["comfy", "kohya-lora"])
def test_a1111_shows_a_file_for_its_own_version_only(to: str, tmp_path: Path) -> None:
    """network.py `detect_version`: any metadata without a version means Stable Diffusion 1, and XL hides the file."""
    said = {}
    for family in ("sd", "sdxl"):
        pipe = zoo.build(family)
        edit = of_layers(pipe, [f"mid_block.{ATTENTION}"])
        if FORMATS[to].low_rank:
            edit, _ = low_rank(edit, set(edit.deltas), rank=1)
        FORMATS[to].write(edit, pipe, tmp_path / f"{family}.safetensors")
        with safe_open(tmp_path / f"{family}.safetensors", framework="pt") as file:
            said[family] = file.metadata().get("ss_base_model_version", "")
    assert said["sdxl"].startswith("sdxl_")
    assert not said["sd"].startswith("sdxl_")


def test_versions_of_stable_diffusion_are_told_apart() -> None:
    class Net:
        def __init__(self, **config: Any) -> None:
            self.config = config

    assert comfy.version(Net(cross_attention_dim=768)) == {"ss_base_model_version": "sd_v1"}
    assert comfy.version(Net(cross_attention_dim=1024))["ss_v2"] == "True"
    assert comfy.version(Net(cross_attention_dim=2048, addition_embed_type="text_time")) == {
        "ss_base_model_version": "sdxl_base_v1-0"
    }
