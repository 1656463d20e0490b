"""What unsee does with every text-to-image class of diffusers, and the table of it in docs/families.md.

    python tests/families.py     writes the table into docs/families.md

tests/test_families.py holds each line to what the class does.
"""

from __future__ import annotations

from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "families.md"
BEGIN, END = "<!-- classes: written by tests/families.py -->", "<!-- end of classes -->"

ERASES = {
    "AuraFlowPipeline": "auraflow",
    "BriaPipeline": "bria",
    "ChromaPipeline": "chroma",
    "CogView3PlusPipeline": "cogview3",
    "CogView4Pipeline": "cogview4",
    "Cosmos2TextToImagePipeline": "cosmos2",
    "Flux2KleinPipeline": "flux2-klein",
    "FluxKontextPipeline": "flux-kontext",
    "ErnieImagePipeline": "ernie",
    "FluxPipeline": "flux-dev",
    "HeliosPipeline": "helios",
    "HiDreamImagePipeline": "hidream",
    "HunyuanDiTPipeline": "hunyuandit",
    "IFPipeline": "if",
    "Kandinsky3Pipeline": "kandinsky3",
    "KandinskyCombinedPipeline": "kandinsky2",
    "KolorsPipeline": "kolors",
    "Krea2Pipeline": "krea2",
    "LTXPipeline": "ltx",
    "LongCatImagePipeline": "longcat",
    "Lumina2Pipeline": "lumina2",
    "LuminaPipeline": "lumina",
    "NucleusMoEImagePipeline": "nucleus",
    "OvisImagePipeline": "ovis",
    "PixArtAlphaPipeline": "pixart-alpha",
    "PixArtSigmaPipeline": "pixart-sigma",
    "QwenImagePipeline": "qwen-image",
    "SanaPipeline": "sana",
    "StableDiffusion3Pipeline": "sd3",
    "StableDiffusionPipeline": "sd",
    "StableDiffusionXLPipeline": "sdxl",
    "WanPipeline": "wan",
    "ZImagePipeline": "z-image",
}
"""Classes that are erased from, and the build of tests/zoo.py, zoo_more.py or zoo_newer.py that shows it."""

NEEDS = {"kolors": "sentencepiece"}
"""Packages without which diffusers has no such class."""

_TERMS = "its guidance has a third term, perturbed attention"
_PAG = "erases with `--call pag_scale=0`"
_ONCE = "does not predict once with the prompt"
_PICTURE = "cannot be run so: Input is in incorrect format"
_IMAGE = "cannot be run so: image must be passed"
_LENGTHS = "prompts of different lengths cannot be learned together here: encoder_hidden_states has no mask"

REFUSED = {
    "BriaFiboPipeline": (_LENGTHS, "a mask of text and picture together; UCE works"),
    "CogView4ControlPipeline": (_PICTURE, "needs a picture"),
    "Flux2Pipeline": (_ONCE, "guidance is distilled; UCE works"),
    "FluxControlNetPipeline": (_PICTURE, "needs a picture"),
    "FluxControlPipeline": (_PICTURE, "needs a picture"),
    "HeliosPyramidPipeline": ("unexpected keyword argument 'num_inference_steps'", "counts its steps by stages"),
    "HunyuanImagePipeline": ("its call takes no guidance_scale", "guidance is a part of it, `guider`"),
    "Ideogram4Pipeline": (_ONCE, "the prediction without the prompt is another network's; UCE works"),
    "HunyuanDiTPAGPipeline": (_TERMS, _PAG),
    "Kandinsky5T2IPipeline": (_LENGTHS, "its texts have no mask; UCE works"),
    "KandinskyV22CombinedPipeline": (
        "matches nothing in UNet2DConditionModel",
        "its U-Net reads no text: another network makes a picture's embedding of the prompt",
    ),
    "LatentConsistencyModelPipeline": (_ONCE, "guidance is distilled"),
    "PRXPipeline": (
        "with several prompts at once, its timestep has 2 rows and its latent has 4",
        "diffusers fails where several prompts are guided at once; UCE works",
    ),
    "PixArtSigmaPAGPipeline": (_TERMS, _PAG),
    "QwenImage21Pipeline": (
        "prompts of different lengths cannot be learned together here: img_mask has no mask",
        "a mask of text and picture together; UCE works",
    ),
    "QwenImageControlNetPipeline": (_PICTURE, "needs a picture"),
    "SanaPAGPipeline": (_TERMS, _PAG),
    "StableDiffusion3ControlNetPipeline": (_PICTURE, "needs a picture"),
    "StableDiffusion3PAGPipeline": (_TERMS, _PAG),
    "StableDiffusionControlNetPAGPipeline": (_TERMS, "needs a picture, too"),
    "StableDiffusionControlNetPipeline": (_IMAGE, "needs a picture"),
    "StableDiffusionPAGPipeline": (_TERMS, _PAG),
    "StableDiffusionXLControlNetPAGPipeline": (_TERMS, "needs a picture, too"),
    "StableDiffusionXLControlNetPipeline": (_IMAGE, "needs a picture"),
    "StableDiffusionXLControlNetUnionPipeline": (_IMAGE, "needs a picture"),
    "StableDiffusionXLPAGPipeline": (_TERMS, _PAG),
    "ZImageControlNetInpaintPipeline": (_PICTURE, "needs a picture"),
    "ZImageControlNetPipeline": (_PICTURE, "needs a picture"),
    "ZImageOmniPipeline": ("its x is not one tensor for each prompt", "a latent comes with those of given pictures"),
}
"""Classes that are refused: part of the line, and why."""

LACKING = {"StableCascadeCombinedPipeline", "WuerstchenCombinedPipeline"}
"""Classes without a part named unet or transformer: refused with "has no denoiser"."""

NOT_BUILT = {
    "GlmImagePipeline": "needs a processor from the hub, and draws tokens of the picture first",
    "KolorsPAGPipeline": "guidance has three terms, as that of the other PAG pipelines",
}
"""Classes that nothing here builds, and why."""


def table() -> str:
    """Every class in one line, as markdown."""
    lines = ["| class | result | test build, or why it is refused |", "|---|---|---|"]
    said = {name: ("erases", f"build {build}") for name, build in ERASES.items()}
    said |= {name: ("refused", f"{why}: “… {line} …”") for name, (line, why) in REFUSED.items()}
    said |= dict.fromkeys(LACKING, ("refused", "“… has no denoiser …”: a chain of other parts"))
    said |= {name: ("not built here", why) for name, why in NOT_BUILT.items()}
    return "\n".join([*lines, *(f"| {name} | {kind} | {text} |" for name, (kind, text) in sorted(said.items()))])


def page(text: str) -> str:
    """The page with the table as it is now."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
