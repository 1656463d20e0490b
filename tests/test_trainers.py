"""LoRAs under the names that each trainer writes: what they say of a denoiser is read, as diffusers does if it can.

Names are those that the trainers' savers write; none is made from the maps in the code.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from unsee.edits.edit import LowRank
from unsee.errors import InputError
from unsee.export.foreign import adopt
from unsee.io import lora
from unsee.models.denoisers import denoiser
from unsee.models.load import load

zoo = pytest.importorskip("zoo")

KOHYA, DOTTED, PEFT, OLD = (
    ("{}.lora_down.weight", "{}.lora_up.weight"),
    ("{}.lora_down.weight", "{}.lora_up.weight"),
    ("{}.lora_A.weight", "{}.lora_B.weight"),
    ("{}_lora.down.weight", "{}_lora.up.weight"),
)
BLOCK = "down_blocks.1.attentions.0.transformer_blocks.0"
JOINT = "transformer_blocks.0"
FILES: dict[str, tuple[str, tuple[str, str], bool, dict[str, list[str]]]] = {
    # trainer and family: which family of the zoo, how factors are called, whether alphas stand beside, and
    # {layer in the file: layers in diffusers that it changes, one above the other}
    "kohya sd": ("sd", KOHYA, True, {
        "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k": [f"{BLOCK}.attn2.to_k"],
        "lora_unet_mid_block_attentions_0_proj_in": ["mid_block.attentions.0.proj_in"],
        "lora_unet_down_blocks_0_resnets_0_conv1": ["down_blocks.0.resnets.0.conv1"],
    }),
    "sliders sd": ("sd", KOHYA, True, {
        "lora_unet_up_blocks_0_attentions_1_transformer_blocks_0_attn1_to_out_0": [
            "up_blocks.0.attentions.1.transformer_blocks.0.attn1.to_out.0"
        ],
    }),
    "diffusers before peft sd": ("sd", OLD, False, {
        f"unet.{BLOCK}.attn2.processor.to_k": [f"{BLOCK}.attn2.to_k"],
        f"unet.{BLOCK}.attn1.processor.to_out": [f"{BLOCK}.attn1.to_out.0"],
    }),
    "diffusers sd": ("sd", PEFT, False, {f"unet.{BLOCK}.attn2.to_v": [f"{BLOCK}.attn2.to_v"]}),
    "peft sd": ("sd", PEFT, False, {f"base_model.model.{BLOCK}.attn2.to_v": [f"{BLOCK}.attn2.to_v"]}),
    "no prefix sd": ("sd", PEFT, False, {f"{BLOCK}.attn2.to_v": [f"{BLOCK}.attn2.to_v"]}),
    "kohya sdxl": ("sdxl", KOHYA, True, {
        "lora_unet_input_blocks_3_1_transformer_blocks_0_attn2_to_k": [f"{BLOCK}.attn2.to_k"],
        "lora_unet_output_blocks_0_0_in_layers_2": ["up_blocks.0.resnets.0.conv1"],
        "lora_unet_middle_block_1_proj_out": ["mid_block.attentions.0.proj_out"],
    }),
    "kohya flux": ("flux-dev", KOHYA, True, {
        "lora_unet_double_blocks_0_img_attn_qkv": [f"{JOINT}.attn.to_{part}" for part in "qkv"],
        "lora_unet_double_blocks_0_txt_mlp_0": [f"{JOINT}.ff_context.net.0.proj"],
        "lora_unet_single_blocks_0_linear1": [
            *(f"single_transformer_blocks.0.attn.to_{part}" for part in "qkv"), "single_transformer_blocks.0.proj_mlp"
        ],
        "lora_unet_single_blocks_0_modulation_lin": ["single_transformer_blocks.0.norm.linear"],
    }),
    "OneTrainer flux": ("flux-dev", KOHYA, True, {
        "lora_transformer_transformer_blocks_0_attn_to_q": [f"{JOINT}.attn.to_q"],
        "lora_transformer_single_transformer_blocks_0_proj_out": ["single_transformer_blocks.0.proj_out"],
    }),
    "ai-toolkit flux": ("flux-dev", PEFT, False, {
        f"transformer.{JOINT}.attn.add_k_proj": [f"{JOINT}.attn.add_k_proj"],
        "transformer.single_transformer_blocks.0.proj_mlp": ["single_transformer_blocks.0.proj_mlp"],
    }),
    "SimpleTuner flux": ("flux-dev", PEFT, False, {f"transformer.{JOINT}.attn.to_q": [f"{JOINT}.attn.to_q"]}),
    "OneTrainer sd3": ("sd3", KOHYA, True, {
        "lora_transformer_transformer_blocks_0_attn_add_v_proj": [f"{JOINT}.attn.add_v_proj"]
    }),
    "kohya sd3": ("sd3", KOHYA, True, {
        "lora_unet_joint_blocks_0_context_block_attn_qkv": [f"{JOINT}.attn.add_{part}_proj" for part in "qkv"]
    }),
    "diffusers sd3": ("sd3", PEFT, False, {f"transformer.{JOINT}.attn.to_k": [f"{JOINT}.attn.to_k"]}),
    "musubi qwen-image": ("qwen-image", KOHYA, True, {
        "lora_unet_transformer_blocks_0_attn_add_q_proj": [f"{JOINT}.attn.add_q_proj"],
        "lora_unet_transformer_blocks_0_img_mod_1": [f"{JOINT}.img_mod.1"],
    }),
    "ai-toolkit qwen-image": ("qwen-image", PEFT, False, {
        f"diffusion_model.{JOINT}.attn.to_out.0": [f"{JOINT}.attn.to_out.0"]
    }),
    "SimpleTuner qwen-image": ("qwen-image", ("{}.lora_A.default.weight", "{}.lora_B.default.weight"), False, {
        f"{JOINT}.attn.to_k": [f"{JOINT}.attn.to_k"]
    }),
    "musubi z-image": ("z-image", KOHYA, True, {
        "lora_unet_layers_0_attention_qkv": [f"layers.0.attention.to_{part}" for part in "qkv"],
        "lora_unet_layers_0_feed_forward_w1": ["layers.0.feed_forward.w1"],
    }),
    "ai-toolkit z-image": ("z-image", PEFT, False, {
        "diffusion_model.layers.0.attention.to_q": ["layers.0.attention.to_q"],
        "diffusion_model.layers.0.attention.out": ["layers.0.attention.to_out.0"],
    }),
    "musubi wan": ("wan", KOHYA, True, {
        f"lora_unet_blocks_{block}_{name}": [f"blocks.{block}.{layer}"]
        for block in range(2)
        for name, layer in {
            **{f"{a}_attn_{x}": f"attn{k}.to_{y}"
               for a, k in (("self", 1), ("cross", 2)) for x, y in zip("qkvo", ("q", "k", "v", "out.0"), strict=True)},
            "ffn_0": "ffn.net.0.proj", "ffn_2": "ffn.net.2",
        }.items()
    }),
    "ai-toolkit wan": ("wan", PEFT, False, {
        "diffusion_model.blocks.0.self_attn.q": ["blocks.0.attn1.to_q"],
        "diffusion_model.blocks.1.ffn.2": ["blocks.1.ffn.net.2"],
    }),
    "kohya lumina2": ("lumina2", KOHYA, True, {
        "lora_unet_layers_0_attention_qkv": [f"layers.0.attn.to_{part}" for part in "qkv"]
    }),
    "ai-toolkit flux2": ("flux2-klein", PEFT, False, {
        "diffusion_model.single_blocks.0.linear1": ["single_transformer_blocks.0.attn.to_qkv_mlp_proj"],
        "diffusion_model.double_blocks.0.txt_attn.qkv": [f"{JOINT}.attn.add_{part}_proj" for part in "qkv"],
    }),
}  # fmt: skip
DIFFUSERS_DOES_NOT = {"kohya sd3", "OneTrainer sd3", "no prefix sd", "peft sd", "kohya lumina2", "musubi z-image"}
DIFFUSERS_DOES_NOT |= {"kohya flux", "OneTrainer flux", "ai-toolkit z-image"}  # not a network this small; not `out`


def written(name: str, net: torch.nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The tensors of a file, and the difference of each layer that it stands for."""
    _, (below, above), alphas, layers = FILES[name]
    rng = torch.Generator().manual_seed(0)
    tensors: dict[str, torch.Tensor] = {}
    wanted: dict[str, torch.Tensor] = {}
    for stem, targets in layers.items():
        weights = [net.get_submodule(layer).weight for layer in targets]
        rows = [len(weight) for weight in weights]  # type: ignore[arg-type]
        shape = weights[0].shape
        kernel = (1,) * (len(shape) - 2)
        down = torch.randn(2, *shape[1:], generator=rng)
        up = torch.randn(sum(rows), 2, *kernel, generator=rng)
        tensors |= {below.format(stem): down, above.format(stem): up}
        if alphas:
            tensors[f"{stem}.alpha"] = torch.tensor(1.0)
        difference = (0.5 if alphas else 1.0) * up.flatten(1) @ down.flatten(1)
        for layer, part in zip(targets, difference.split(rows), strict=True):
            wanted[layer] = part
    return tensors, wanted


@pytest.mark.parametrize("name", FILES)
def test_every_trainers_names_are_read(name: str, tmp_path: Path) -> None:
    pipe = zoo.build(FILES[name][0])
    key, net = denoiser(pipe)
    tensors, wanted = written(name, net)
    save_file(tensors, tmp_path / "in.safetensors")
    edit = adopt(tmp_path / "in.safetensors", pipe)
    assert edit.deltas.keys() == {f"{key}.{layer}.weight" for layer in wanted}
    for layer, want in wanted.items():
        found = edit.deltas[f"{key}.{layer}.weight"]
        assert isinstance(found, LowRank)
        torch.testing.assert_close(found.up @ found.down, want)
    if name in DIFFUSERS_DOES_NOT:
        return
    pipe.load_lora_weights(dict(tensors))
    for layer, want in wanted.items():
        module: Any = net.get_submodule(layer)
        torch.testing.assert_close(module.get_delta_weight(next(iter(module.lora_A))).flatten(1), want)


def test_pefts_own_settings_scale_its_file(tmp_path: Path) -> None:
    pipe = zoo.build("sd")
    tensors, wanted = written("peft sd", pipe.unet)
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    settings = {"r": 2, "lora_alpha": 8, "alpha_pattern": {}, "target_modules": ["to_v"]}
    for pattern, scale in (({}, 4.0), ({"attn2.to_v": 1}, 0.5), ({r"^.*(a+)+$": 1}, 4.0)):
        (tmp_path / "adapter_config.json").write_text(json.dumps({**settings, "alpha_pattern": pattern}))
        (found,) = adopt(tmp_path / "adapter_model.safetensors", pipe).deltas.values()
        assert isinstance(found, LowRank)
        torch.testing.assert_close(found.up @ found.down, scale * wanted[f"{BLOCK}.attn2.to_v"])
    (tmp_path / "adapter_config.json").write_text("[" * 10000)
    with pytest.raises(InputError, match="no JSON"):
        adopt(tmp_path / "adapter_model.safetensors", pipe)


def test_layers_that_are_not_here_are_counted_and_refused(tmp_path: Path) -> None:
    """Names of two kinds in one file are one file; what no name fits is not taken for a text encoder's."""
    pipe = zoo.build("sdxl")
    mixed = {
        **written("kohya sdxl", pipe.unet)[0],
        "lora_unet_down_blocks_1_attentions_0_transformer_blocks_1_attn2_to_k.lora_down.weight": torch.ones(2, 64),
        "lora_unet_down_blocks_1_attentions_0_transformer_blocks_1_attn2_to_k.lora_up.weight": torch.ones(32, 2),
        "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.ones(2, 32),
        "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": torch.ones(32, 2),
    }
    path = tmp_path / "in.safetensors"
    save_file(mixed, path)
    edit = adopt(path, pipe)
    assert len(edit.deltas) == 4
    assert edit.card.settings["left_out"] == {"text encoder": 1}
    other = {name.replace("input_blocks_3", "input_blocks_7"): value for name, value in mixed.items()}
    save_file(other, path)
    with pytest.raises(InputError, match=r"1 of 4 layers are not in this UNet2DCond.*input_blocks_7.*; `partial`"):
        adopt(path, pipe)
    edit = adopt(path, pipe, partial=True)
    assert len(edit.deltas) == 3
    assert edit.card.settings["left_out"] == {"text encoder": 1, "not in this model": 1}


def test_a_lora_of_text_and_picture_goes_on_top_of_a_model(tmp_path: Path) -> None:
    pipe = load("tiny")
    tensors, wanted = written("kohya sd", pipe.unet)
    part = pipe.text_encoder.get_submodule(
        "text_model.encoder.layers.0.mlp.fc1"
        if hasattr(pipe.text_encoder, "text_model")
        else "encoder.layers.0.mlp.fc1"
    )
    name = "lora_te_text_model_encoder_layers_0_mlp_fc1"
    tensors |= {
        f"{name}.lora_down.weight": torch.ones(2, part.in_features),
        f"{name}.lora_up.weight": torch.ones(part.out_features, 2),
        f"{name}.alpha": torch.tensor(2.0),
    }
    path = tmp_path / "style.safetensors"
    save_file(tensors, path)
    finetune = load(f"tiny+{path}")
    for layer, want in wanted.items():
        before, after = (one.unet.get_submodule(layer).weight for one in (pipe, finetune))
        torch.testing.assert_close(after - before, want.reshape(after.shape), rtol=0, atol=1e-5)
    changed = finetune.text_encoder.state_dict()
    moved = {key for key, value in pipe.text_encoder.state_dict().items() if not torch.equal(changed[key], value)}
    assert [key.rpartition("encoder.layers.")[2] for key in moved] == ["0.mlp.fc1.weight"]


def test_adapters_that_only_diffusers_knows_are_read_by_diffusers(tmp_path: Path) -> None:
    """xlabs' names of FLUX."""
    pipe = zoo.build("flux-dev")
    width = 32
    tensors = {
        f"double_blocks.0.processor.{what}_lora{k}.{way}.weight": torch.ones(*shape)
        for k in (1, 2)
        for what, rows in (("qkv", 3 * width), ("proj", width))
        for way, shape in (("down", (2, width)), ("up", (rows, 2)))
    }
    save_file(tensors, tmp_path / "in.safetensors")
    edit = adopt(tmp_path / "in.safetensors", pipe)
    assert {name.rpartition(".attn.")[2].removesuffix(".weight") for name in edit.deltas} == {
        "to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "to_out.0", "to_add_out"
    }  # fmt: skip
    assert lora.UP.fullmatch("double_blocks.0.processor.qkv_lora2.up.weight")
