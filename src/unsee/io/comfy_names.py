"""ComfyUI's own names of a denoiser's tensors: for each class of diffusers one map, from its names to diffusers'.

A line is ComfyUI's layer and diffusers' layer, which have weights and biases of the same shapes; several layers of
diffusers are one of ComfyUI's, in that order, one above the other. A name that ends in .weight is one tensor. {} stands
for the same text on both sides. What is not here ComfyUI has no place for.

Read from comfy/utils.py (`..._to_diffusers`), model_base.py and the networks of ComfyUI 0.8.0 (January 2026), and run
against them (docs/files.md). Krea 2 is read from code of November 2026 and has not been run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Names = Mapping[str, str | tuple[str, ...]]


def _qkv(block: str) -> tuple[str, ...]:
    return tuple(f"{block}.to_{part}" for part in "qkv")


def _added(block: str) -> tuple[str, ...]:
    return tuple(f"{block}.add_{part}_proj" for part in "qkv")


_SD3: Names = {
    "x_embedder.proj": "pos_embed.proj",
    "context_embedder": "context_embedder",
    "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "time_text_embed.timestep_embedder.linear_2",
    "y_embedder.mlp.0": "time_text_embed.text_embedder.linear_1",
    "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2",
    "joint_blocks.{}.x_block.adaLN_modulation.1": "transformer_blocks.{}.norm1.linear",
    "joint_blocks.{}.x_block.attn.qkv": _qkv("transformer_blocks.{}.attn"),
    "joint_blocks.{}.x_block.attn.ln_q": "transformer_blocks.{}.attn.norm_q",
    "joint_blocks.{}.x_block.attn.ln_k": "transformer_blocks.{}.attn.norm_k",
    "joint_blocks.{}.x_block.attn.proj": "transformer_blocks.{}.attn.to_out.0",
    "joint_blocks.{}.x_block.attn2.qkv": _qkv("transformer_blocks.{}.attn2"),
    "joint_blocks.{}.x_block.attn2.ln_q": "transformer_blocks.{}.attn2.norm_q",
    "joint_blocks.{}.x_block.attn2.ln_k": "transformer_blocks.{}.attn2.norm_k",
    "joint_blocks.{}.x_block.attn2.proj": "transformer_blocks.{}.attn2.to_out.0",
    "joint_blocks.{}.x_block.mlp.fc1": "transformer_blocks.{}.ff.net.0.proj",
    "joint_blocks.{}.x_block.mlp.fc2": "transformer_blocks.{}.ff.net.2",
    "joint_blocks.{}.context_block.adaLN_modulation.1": "transformer_blocks.{}.norm1_context.linear",
    "joint_blocks.{}.context_block.attn.qkv": _added("transformer_blocks.{}.attn"),
    "joint_blocks.{}.context_block.attn.ln_q": "transformer_blocks.{}.attn.norm_added_q",
    "joint_blocks.{}.context_block.attn.ln_k": "transformer_blocks.{}.attn.norm_added_k",
    "joint_blocks.{}.context_block.attn.proj": "transformer_blocks.{}.attn.to_add_out",
    "joint_blocks.{}.context_block.mlp.fc1": "transformer_blocks.{}.ff_context.net.0.proj",
    "joint_blocks.{}.context_block.mlp.fc2": "transformer_blocks.{}.ff_context.net.2",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
    "final_layer.linear": "proj_out",
}

_BFL: Names = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "double_blocks.{}.img_attn.qkv": _qkv("transformer_blocks.{}.attn"),
    "double_blocks.{}.img_attn.norm.query_norm.scale": "transformer_blocks.{}.attn.norm_q.weight",
    "double_blocks.{}.img_attn.norm.key_norm.scale": "transformer_blocks.{}.attn.norm_k.weight",
    "double_blocks.{}.img_attn.proj": "transformer_blocks.{}.attn.to_out.0",
    "double_blocks.{}.txt_attn.qkv": _added("transformer_blocks.{}.attn"),
    "double_blocks.{}.txt_attn.norm.query_norm.scale": "transformer_blocks.{}.attn.norm_added_q.weight",
    "double_blocks.{}.txt_attn.norm.key_norm.scale": "transformer_blocks.{}.attn.norm_added_k.weight",
    "double_blocks.{}.txt_attn.proj": "transformer_blocks.{}.attn.to_add_out",
    "single_blocks.{}.norm.query_norm.scale": "single_transformer_blocks.{}.attn.norm_q.weight",
    "single_blocks.{}.norm.key_norm.scale": "single_transformer_blocks.{}.attn.norm_k.weight",
    "final_layer.linear": "proj_out",
}
"""What all networks of Black Forest Labs share."""

_FLUX1: Names = {
    **_BFL,
    "double_blocks.{}.img_mlp.0": "transformer_blocks.{}.ff.net.0.proj",
    "double_blocks.{}.img_mlp.2": "transformer_blocks.{}.ff.net.2",
    "double_blocks.{}.txt_mlp.0": "transformer_blocks.{}.ff_context.net.0.proj",
    "double_blocks.{}.txt_mlp.2": "transformer_blocks.{}.ff_context.net.2",
    "single_blocks.{}.linear1": (
        *_qkv("single_transformer_blocks.{}.attn"),
        "single_transformer_blocks.{}.proj_mlp",
    ),
    "single_blocks.{}.linear2": "single_transformer_blocks.{}.proj_out",
}

_FLUX: Names = {
    **_FLUX1,
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "double_blocks.{}.img_mod.lin": "transformer_blocks.{}.norm1.linear",
    "double_blocks.{}.txt_mod.lin": "transformer_blocks.{}.norm1_context.linear",
    "single_blocks.{}.modulation.lin": "single_transformer_blocks.{}.norm.linear",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
}

_CHROMA: Names = {
    **_FLUX1,
    "distilled_guidance_layer.in_proj": "distilled_guidance_layer.in_proj",
    "distilled_guidance_layer.layers.{}.in_layer": "distilled_guidance_layer.layers.{}.linear_1",
    "distilled_guidance_layer.layers.{}.out_layer": "distilled_guidance_layer.layers.{}.linear_2",
    "distilled_guidance_layer.norms.{}.scale": "distilled_guidance_layer.norms.{}.weight",
    "distilled_guidance_layer.out_proj": "distilled_guidance_layer.out_proj",
}

_FLUX2: Names = {
    **_BFL,
    "time_in.in_layer": "time_guidance_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_guidance_embed.timestep_embedder.linear_2",
    "guidance_in.in_layer": "time_guidance_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_guidance_embed.guidance_embedder.linear_2",
    "double_stream_modulation_img.lin": "double_stream_modulation_img.linear",
    "double_stream_modulation_txt.lin": "double_stream_modulation_txt.linear",
    "single_stream_modulation.lin": "single_stream_modulation.linear",
    "double_blocks.{}.img_mlp.0": "transformer_blocks.{}.ff.linear_in",
    "double_blocks.{}.img_mlp.2": "transformer_blocks.{}.ff.linear_out",
    "double_blocks.{}.txt_mlp.0": "transformer_blocks.{}.ff_context.linear_in",
    "double_blocks.{}.txt_mlp.2": "transformer_blocks.{}.ff_context.linear_out",
    "single_blocks.{}.linear1": "single_transformer_blocks.{}.attn.to_qkv_mlp_proj",
    "single_blocks.{}.linear2": "single_transformer_blocks.{}.attn.to_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
}

_Z_BLOCKS = ("layers", "noise_refiner", "context_refiner")
_Z_IMAGE: Names = {
    "x_embedder": "all_x_embedder.2-1",
    "t_embedder.{}": "t_embedder.{}",
    "cap_embedder.{}": "cap_embedder.{}",
    **{f"{blocks}.{{}}.attention.qkv": _qkv(f"{blocks}.{{}}.attention") for blocks in _Z_BLOCKS},
    **{f"{blocks}.{{}}.attention.q_norm": f"{blocks}.{{}}.attention.norm_q" for blocks in _Z_BLOCKS},
    **{f"{blocks}.{{}}.attention.k_norm": f"{blocks}.{{}}.attention.norm_k" for blocks in _Z_BLOCKS},
    **{f"{blocks}.{{}}.attention.out": f"{blocks}.{{}}.attention.to_out.0" for blocks in _Z_BLOCKS},
    **{f"{blocks}.{{}}": f"{blocks}.{{}}" for blocks in _Z_BLOCKS},
    "final_layer.{}": "all_final_layer.2-1.{}",
}

_LUMINA2: Names = {
    "x_embedder": "x_embedder",
    "t_embedder.mlp.0": "time_caption_embed.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "time_caption_embed.timestep_embedder.linear_2",
    "cap_embedder.{}": "time_caption_embed.caption_embedder.{}",
    "{}.adaLN_modulation.1": "{}.norm1.linear",
    "{}.attention.qkv": _qkv("{}.attn"),
    "{}.attention.q_norm": "{}.attn.norm_q",
    "{}.attention.k_norm": "{}.attn.norm_k",
    "{}.attention.out": "{}.attn.to_out.0",
    "context_refiner.{}.attention_norm1": "context_refiner.{}.norm1",
    "{}.attention_norm1": "{}.norm1.norm",
    "{}.attention_norm2": "{}.norm2",
    "{}.feed_forward.w{}": "{}.feed_forward.linear_{}",
    "{}.ffn_norm{}": "{}.ffn_norm{}",
    "final_layer.adaLN_modulation.1": "norm_out.linear_1",
    "final_layer.linear": "norm_out.linear_2",
}

_WAN_PARTS = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0", "norm_q": "norm_q", "norm_k": "norm_k"}
_WAN: Names = {
    "patch_embedding": "patch_embedding",
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    **{f"blocks.{{}}.self_attn.{own}": f"blocks.{{}}.attn1.{part}" for own, part in _WAN_PARTS.items()},
    **{f"blocks.{{}}.cross_attn.{own}": f"blocks.{{}}.attn2.{part}" for own, part in _WAN_PARTS.items()},
    "blocks.{}.norm3": "blocks.{}.norm2",
    "blocks.{}.ffn.0": "blocks.{}.ffn.net.0.proj",
    "blocks.{}.ffn.2": "blocks.{}.ffn.net.2",
    "head.head": "proj_out",
}

_PIXART: Names = {
    "x_embedder.proj": "pos_embed.proj",
    "y_embedder.y_proj.fc1": "caption_projection.linear_1",
    "y_embedder.y_proj.fc2": "caption_projection.linear_2",
    "t_embedder.mlp.0": "adaln_single.emb.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "adaln_single.emb.timestep_embedder.linear_2",
    "csize_embedder.mlp.0": "adaln_single.emb.resolution_embedder.linear_1",
    "csize_embedder.mlp.2": "adaln_single.emb.resolution_embedder.linear_2",
    "ar_embedder.mlp.0": "adaln_single.emb.aspect_ratio_embedder.linear_1",
    "ar_embedder.mlp.2": "adaln_single.emb.aspect_ratio_embedder.linear_2",
    "t_block.1": "adaln_single.linear",
    "blocks.{}.attn.qkv": _qkv("transformer_blocks.{}.attn1"),
    "blocks.{}.attn.proj": "transformer_blocks.{}.attn1.to_out.0",
    "blocks.{}.cross_attn.q_linear": "transformer_blocks.{}.attn2.to_q",
    "blocks.{}.cross_attn.kv_linear": _qkv("transformer_blocks.{}.attn2")[1:],
    "blocks.{}.cross_attn.proj": "transformer_blocks.{}.attn2.to_out.0",
    "blocks.{}.mlp.fc1": "transformer_blocks.{}.ff.net.0.proj",
    "blocks.{}.mlp.fc2": "transformer_blocks.{}.ff.net.2",
    "final_layer.linear": "proj_out",
}


def _krea2(own: str, block: str) -> Names:
    parts = {"wq": "to_q", "wk": "to_k", "wv": "to_v", "gate": "to_gate", "wo": "to_out.0"}
    return {
        **{f"{own}.{{}}.attn.{name}": f"{block}.{{}}.attn.{part}" for name, part in parts.items()},
        **{f"{own}.{{}}.mlp.{name}": f"{block}.{{}}.ff.{name}" for name in ("gate", "up", "down")},
    }


_KREA2: Names = {
    "first": "img_in",
    "tmlp.0": "time_embed.linear_1",
    "tmlp.2": "time_embed.linear_2",
    "tproj.1": "time_mod_proj",
    "txtmlp.1": "txt_in.linear_1",
    "txtmlp.3": "txt_in.linear_2",
    "txtfusion.projector": "text_fusion.projector",
    **_krea2("blocks", "transformer_blocks"),
    **_krea2("txtfusion.layerwise_blocks", "text_fusion.layerwise_blocks"),
    **_krea2("txtfusion.refiner_blocks", "text_fusion.refiner_blocks"),
    "last.linear": "final_layer.linear",
}

TRANSFORMERS: dict[str, Names] = {
    "SD3Transformer2DModel": _SD3,
    "FluxTransformer2DModel": _FLUX,
    "Flux2Transformer2DModel": _FLUX2,
    "ChromaTransformer2DModel": _CHROMA,
    "QwenImageTransformer2DModel": {"{}": "{}"},
    "ZImageTransformer2DModel": _Z_IMAGE,
    "Lumina2Transformer2DModel": _LUMINA2,
    "WanTransformer3DModel": _WAN,
    "PixArtTransformer2DModel": _PIXART,
    "Krea2Transformer2DModel": _KREA2,
}
"""By diffusers' class."""

SHIFT_FIRST = {"SD3Transformer2DModel", "FluxTransformer2DModel", "Flux2Transformer2DModel"}
"""Where ComfyUI's last modulations are shift over scale; those in diffusers (AdaLayerNormContinuous) the reverse."""

_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_UNET = {
    "input_blocks.0.0": "conv_in",
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "middle_block.1.{}": "mid_block.attentions.0.{}",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}


def unet(net: Any) -> Names:
    """The map of a UNet. Its first authors counted blocks in one row; each of diffusers' is n layers and a sampler."""
    n, blocks = net.config.layers_per_block, len(net.config.block_out_channels)
    resnets = {"middle_block.0": "mid_block.resnets.0", "middle_block.2": "mid_block.resnets.1"}
    names = dict(_UNET)
    for block in range(blocks):
        down, up = 1 + block * (n + 1), block * (n + 1)
        for k in range(n):
            resnets[f"input_blocks.{down + k}.0"] = f"down_blocks.{block}.resnets.{k}"
            names[f"input_blocks.{down + k}.1.{{}}"] = f"down_blocks.{block}.attentions.{k}.{{}}"
        names[f"input_blocks.{down + n}.0.op"] = f"down_blocks.{block}.downsamplers.0.conv"
        for k in range(n + 1):
            resnets[f"output_blocks.{up + k}.0"] = f"up_blocks.{block}.resnets.{k}"
            names[f"output_blocks.{up + k}.1.{{}}"] = f"up_blocks.{block}.attentions.{k}.{{}}"
        after = 2 if hasattr(net.up_blocks[block], "attentions") else 1
        names[f"output_blocks.{up + n}.{after}.conv"] = f"up_blocks.{block}.upsamplers.0.conv"
    for own, layer in resnets.items():
        names |= {f"{own}.{inner}": f"{layer}.{part}" for inner, part in _RESNET.items()}
    return names
