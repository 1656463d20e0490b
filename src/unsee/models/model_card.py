"""What a model's own card says."""

from __future__ import annotations

from typing import Any

from huggingface_hub import metadata_load

from unsee.models.names import model_folder


def model_card(model: str) -> dict[str, Any]:
    """What a model's own card (README.md) says under `unsee`.

    judges                 folders of classifiers by kind, as absolute paths here
    words                  a file that lists what the model knows: objects with their other names, styles and so on
    steps, guidance_scale  of the sampler, that suit the model
    call                   options of the pipeline's call, such as max_sequence_length; `load` keeps them
    """
    path = model_folder(model)
    if path is None or not (path / "README.md").is_file():
        return {}
    said: dict[str, Any] = (metadata_load(path / "README.md") or {}).get("unsee", {})
    judges = {kind: str(path / place) for kind, place in said.get("judges", {}).items()}
    return {**said, "judges": judges, **({"words": str(path / said["words"])} if "words" in said else {})}
