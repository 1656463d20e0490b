"""What ComfyUI and A1111 make of our files, by what their code says. Neither runs here; docs/files.md says what ran.

ComfyUI, comfy/lora.py: `model_lora_keys_unet` knows each tensor of its models by its own name, diffusion_model.TENSOR,
without the ending if that is .weight; of UNets also lora_unet_ and its own layer or diffusers', with underscores.
`load_lora` adds NAME.diff to the tensor, and NAME.diff_b to the bias beside a weight.
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
from unsee.edits.card import Card
from unsee.errors import InputError
from unsee.export import comfy
from unsee.export.clients import partly
from unsee.export.foreign import adopt
from unsee.export.formats import FORMATS, matrices
from unsee.export.lowrank import low_rank
from unsee.io.original_names import places
from unsee.models.denoisers import denoiser
from unsee.models.fingerprint import fingerprint
from unsee.models.weights import select
from unsee.runs.export import export

zoo = pytest.importorskip("zoo")

ATTENTION = "attentions.0.transformer_blocks.0.attn2.to_k"
TEXT = "transformer_blocks.0.attn.add_{}_proj"
WHOLE, TURNED = (0, 1, 1), (1, 0, 2)
NAMES: dict[str, dict[str, tuple[str, tuple[int, int, int]]]] = {
    # comfy/utils.py unet_to_diffusers, UNET_MAP_RESNET, UNET_MAP_BASIC
    "sd": {
        f"mid_block.{ATTENTION}": ("middle_block.1.transformer_blocks.0.attn2.to_k", WHOLE),
        "down_blocks.1.resnets.0.conv1": ("input_blocks.3.0.in_layers.2", WHOLE),
        "mid_block.resnets.1.time_emb_proj": ("middle_block.2.emb_layers.1", WHOLE),
        "up_blocks.0.upsamplers.0.conv": ("output_blocks.1.2.conv", WHOLE),
        "conv_norm_out": ("out.0", WHOLE),
    },
    "sdxl": {
        f"down_blocks.1.{ATTENTION}": ("input_blocks.3.1.transformer_blocks.0.attn2.to_k", WHOLE),
        "up_blocks.1.resnets.1.conv_shortcut": ("output_blocks.3.0.skip_connection", WHOLE),
        "down_blocks.0.downsamplers.0.conv": ("input_blocks.2.0.op", WHOLE),
        "add_embedding.linear_1": ("label_emb.0.0", WHOLE),
        "time_embedding.linear_2": ("time_embed.2", WHOLE),
    },
    # mmdit_to_diffusers
    "sd3": {
        TEXT.format("k"): ("joint_blocks.0.context_block.attn.qkv", (1, 2, 3)),
        TEXT.format("v"): ("joint_blocks.0.context_block.attn.qkv", (2, 3, 3)),
        "transformer_blocks.1.attn.to_q": ("joint_blocks.1.x_block.attn.qkv", (0, 1, 3)),
        "context_embedder": ("context_embedder", WHOLE),
        "transformer_blocks.0.norm1_context.linear": ("joint_blocks.0.context_block.adaLN_modulation.1", WHOLE),
        "transformer_blocks.1.norm1_context.linear": ("joint_blocks.1.context_block.adaLN_modulation.1", TURNED),
        "norm_out.linear": ("final_layer.adaLN_modulation.1", TURNED),
    },
    # flux_to_diffusers; model_base.py: Chroma and Flux2 are kinds of Flux
    "flux-dev": {
        TEXT.format("k"): ("double_blocks.0.txt_attn.qkv", (1, 2, 3)),
        "single_transformer_blocks.0.attn.to_v": ("single_blocks.0.linear1", (2, 3, 7)),
        "single_transformer_blocks.0.proj_mlp": ("single_blocks.0.linear1", (3, 7, 7)),
        "single_transformer_blocks.0.proj_out": ("single_blocks.0.linear2", WHOLE),
        "transformer_blocks.0.norm1.linear": ("double_blocks.0.img_mod.lin", WHOLE),
        "time_text_embed.guidance_embedder.linear_1": ("guidance_in.in_layer", WHOLE),
        "norm_out.linear": ("final_layer.adaLN_modulation.1", TURNED),
    },
    "chroma": {
        TEXT.format("v"): ("double_blocks.0.txt_attn.qkv", (2, 3, 3)),
        "distilled_guidance_layer.layers.0.linear_2": ("distilled_guidance_layer.layers.0.out_layer", WHOLE),
    },
    "flux2-klein": {
        TEXT.format("k"): ("double_blocks.0.txt_attn.qkv", (1, 2, 3)),
        "double_stream_modulation_img.linear": ("double_stream_modulation_img.lin", WHOLE),
        "single_transformer_blocks.0.attn.to_out": ("single_blocks.0.linear2", WHOLE),
        "time_guidance_embed.timestep_embedder.linear_1": ("time_in.in_layer", WHOLE),
        "norm_out.linear": ("final_layer.adaLN_modulation.1", TURNED),
    },
    # ldm/qwen_image/model.py: the same names, and scale before shift
    "qwen-image": {TEXT.format("k"): (TEXT.format("k"), WHOLE), "norm_out.linear": ("norm_out.linear", WHOLE)},
    # z_image_to_diffusers
    "z-image": {
        "cap_embedder.1": ("cap_embedder.1", WHOLE),
        "layers.0.attention.to_v": ("layers.0.attention.qkv", (2, 3, 3)),
        "noise_refiner.0.attention.to_out.0": ("noise_refiner.0.attention.out", WHOLE),
        "all_final_layer.2-1.linear": ("final_layer.linear", WHOLE),
    },
    # pixart_to_diffusers
    "pixart-sigma": {"transformer_blocks.0.attn2.to_v": ("blocks.0.cross_attn.kv_linear", (1, 2, 2))},
    # krea2_to_diffusers
    "krea2": {"txt_in.linear_2": ("txtmlp.3", WHOLE)},
    # ldm/lumina/model.py and ldm/wan/model.py
    "lumina2": {
        "context_refiner.0.norm1": ("context_refiner.0.attention_norm1", WHOLE),
        "layers.0.norm1.norm": ("layers.0.attention_norm1", WHOLE),
        "layers.0.attn.to_k": ("layers.0.attention.qkv", (1, 2, 3)),
    },
    "wan": {
        "blocks.0.attn2.to_k": ("blocks.0.cross_attn.k", WHOLE),
        "blocks.1.norm2": ("blocks.1.norm3", WHOLE),
        "blocks.0.ffn.net.0.proj": ("blocks.0.ffn.0", WHOLE),
    },
}
"""By family: a layer in diffusers; ComfyUI's layer; which rows of it, as (first, after, of), or its halves turned."""


def comfyui(file: dict[str, torch.Tensor], names: dict[str, tuple[str, tuple[int, int, int]]]) -> dict[str, Any]:
    """What ComfyUI adds to its tensors."""
    known = {}
    for layer, (own, _) in names.items():
        known |= {f"diffusion_model.{own}": own, f"lora_unet_{own.replace('.', '_')}": own}
        known |= {f"lora_unet_{layer.replace('.', '_')}": own}
    added = {}
    for key, difference in file.items():
        name, _, mark = key.rpartition(".")
        assert name in known, f"lora key not loaded: {key}"
        added[f"{known[name]}.{'weight' if mark == 'diff' else 'bias'}"] = difference
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
        own, (first, after, of) = NAMES[family][layer]
        whole = added[f"{own}.{kind}"]
        assert isinstance(want, torch.Tensor)
        if (first, after, of) == TURNED:
            assert torch.equal(torch.cat([whole[len(whole) // 2 :], whole[: len(whole) // 2]]), want)
            continue
        size = len(whole) // of
        assert torch.equal(whole[first * size : after * size], want)
        mine = [
            n for n in edit.deltas if n.endswith(kind) and NAMES[family][n[len(key) + 1 : -len(kind) - 1]][0] == own
        ]
        assert whole.count_nonzero() == sum(edit.deltas[n].numel() for n in mine), "rows of nobody"  # type: ignore[union-attr]
    again = adopt(tmp_path / "out.safetensors", pipe)
    assert again.deltas.keys() == edit.deltas.keys()
    for name, want in edit.deltas.items():
        assert torch.equal(again.deltas[name], want)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "flux-dev", "chroma", "flux2-klein", "qwen-image", "z-image"])
def test_every_layer_has_its_own_name_in_comfyui(family: str) -> None:
    """So that edits of noncross and of all can be exported. ComfyUI patches no bare parameter: it goes by layers."""
    key, net = denoiser(zoo.build(family))
    found = places(key, net)
    lacking = {name for name, _ in net.named_parameters()} - found.keys()
    assert lacking == ({"x_pad_token", "cap_pad_token"} if family == "z-image" else set())
    assert len({(place.tensor, place.start) for place in found.values()}) == len(found)
    written = {place.tensor: place.rows for place in found.values()}
    total = sum(parameter.numel() for name, parameter in net.named_parameters() if name in found)
    sizes = {place.tensor: net.get_parameter(name)[0].numel() for name, place in found.items()}
    rows = {place.tensor: written[place.tensor] or len(net.get_parameter(name)) for name, place in found.items()}
    assert sum(rows[tensor] * sizes[tensor] for tensor in written) == total, "rows that no parameter fills"


@pytest.mark.parametrize(
    "spelling",
    [
        "diffusion_model.input_blocks.1.0.in_layers.2.diff",
        "lora_unet_input_blocks_1_0_in_layers_2.diff",
        "lora_unet_down_blocks_0_resnets_0_conv1.diff",
    ],
)
def test_every_spelling_of_a_layer_is_read(spelling: str, tmp_path: Path) -> None:
    pipe = zoo.build("sd")
    weight = pipe.unet.down_blocks[0].resnets[0].conv1.weight
    save_file({spelling: torch.ones_like(weight)}, tmp_path / "in.safetensors")
    assert list(adopt(tmp_path / "in.safetensors", pipe).deltas) == ["unet.down_blocks.0.resnets.0.conv1.weight"]


@pytest.mark.parametrize("family", ["sana", "cogview3"])
def test_families_that_comfyui_does_not_have_are_refused(family: str, tmp_path: Path) -> None:
    pipe = zoo.build(family)
    _, net = denoiser(pipe)
    layer = next(name for name, part in net.named_modules() if isinstance(part, torch.nn.Linear))
    assert not comfy.reads(net)
    with pytest.raises(InputError, match="ComfyUI has no key for .*: export to pipeline or delta"):
        export(of_layers(pipe, [layer]), pipe, "comfy", tmp_path / "out.safetensors")


def test_a_weight_that_comfyui_has_no_key_for_is_left_out_and_named(tmp_path: Path) -> None:
    """Of z-image's two learned tokens; what is left of the squares is known by hand."""
    pipe = zoo.build("z-image")
    edit = of_layers(pipe, ["cap_embedder.1"], ("weight",))
    tokens = {"transformer.x_pad_token": torch.ones(pipe.transformer.x_pad_token.shape)}
    weight = {"transformer.cap_embedder.1.weight": torch.ones(pipe.transformer.cap_embedder[1].weight.shape)}
    done = export(unsee.Edit({**weight, **tokens}, edit.card), pipe, "comfy", tmp_path / "out.safetensors")
    assert done.loss
    assert done.loss.out == ("transformer.x_pad_token",)
    assert done.loss.kept == pytest.approx(32 / 33)  # 32 x 32 ones and 32 ones
    assert done.exact
    with pytest.raises(InputError, match="no key for 'transformer.x_pad_token'"):
        export(unsee.Edit(dict(tokens), edit.card), pipe, "comfy", tmp_path / "other.safetensors")


def test_every_matrix_of_sdxl_is_written_and_read_in_kohyas_format(tmp_path: Path) -> None:
    """Under the names that real files of XL have, so that A1111 finds the upsampler and diffusers the embedding."""
    pipe = zoo.build("sdxl")
    edit, _ = low_rank(of_layers(pipe, [name for name, _ in pipe.unet.named_modules()]), matrices(pipe), rank=2)
    done = export(edit, pipe, "kohya-lora", tmp_path / "out.safetensors")
    assert done.partly == (
        f"sd-scripts (February 2026) reads {len(edit.deltas) - 6} of {len(edit.deltas)} of these layers, "
        "not add_embedding.linear_1 and 5 more",
    )
    layers = {key.partition(".")[0] for key in load_file(tmp_path / "out.safetensors")}
    assert {"lora_unet_output_blocks_1_2_conv", "lora_unet_label_emb_0_0", "lora_unet_out_2"} <= layers
    assert len(layers) == len(edit.deltas)
    assert adopt(tmp_path / "out.safetensors", pipe).deltas.keys() == edit.deltas.keys()


def test_what_its_reader_loses_is_named_and_the_rest_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = zoo.build("sd")
    edit, _ = low_rank(of_layers(pipe, [f"mid_block.{ATTENTION}", "conv_in"], ("weight",)), matrices(pipe), rank=1)
    named = comfy.layer_key
    lost = "lora_unet_of_another"
    monkeypatch.setattr(comfy, "layer_key", lambda net, name, own: lost if name == "conv_in" else named(net, name, own))
    done = export(edit, pipe, "kohya-lora", tmp_path / "out.safetensors")
    assert re.fullmatch(r"diffusers [\d.]+ reads 1 of 2 of these layers, not conv_in", done.partly[-1])


@pytest.mark.parametrize(
    ("family", "selection", "told"),
    [
        ("flux2-klein", "noncross", {"ComfyUI 0.8.0 reads 7 of 18"}),
        ("flux2-klein", "cross-kv", set()),
        ("chroma", "noncross", {"ComfyUI 0.8.0 reads 15 of 19", "Forge (June 2025) reads none of these 19"}),
        ("flux-dev", "all", set()),
        ("wan", "cross-kv", {"ComfyUI 0.8.0 reads none of these 4"}),
    ],
)
def test_clients_that_read_only_a_part_of_a_file_are_named(family: str, selection: str, told: set[str]) -> None:
    """Counted in those clients."""
    pipe = zoo.build(family)
    key, net = denoiser(pipe)
    layers = [name.removesuffix(".weight") for name in select(net, selection) if f"{key}.{name}" in matrices(pipe)]
    lines = partly("diffusers-lora", type(net).__name__, layers)
    assert {line.partition(" of these layers")[0].removesuffix(" layers") for line in lines} == told


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


A1111 = {
    "sd": (
        r"conv_in|conv_out|time_embedding_linear_[12]|(down|up)_blocks_\d_attentions_\d_.+|mid_block_attentions_0_.+"
        r"|((down|up)_blocks_\d|mid_block)_resnets_\d_(conv1|conv2|norm1|norm2|time_emb_proj|conv_shortcut)"
        r"|down_blocks_\d_downsamplers_0_conv|up_blocks_\d_upsamplers_0_conv|out_0"
    ),
    "sdxl": (
        r"((in|out)put_blocks_\d|middle_block)_\d_"
        r"((in|emb|out)_layers_\d|skip_connection|norm|proj_(in|out)|transformer_blocks_.+|conv|op)"
        r"|input_blocks_0_0|time_embed_[02]|label_emb_0_[02]|out_[02]"
    ),
}
"""Names after lora_unet_ that become a layer of A1111's models: those that networks.py,
`convert_diffusers_name_to_compvis`, knows of diffusers, and its own."""


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
        assert re.fullmatch(A1111[family], name.removeprefix("lora_unet_")), name
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
