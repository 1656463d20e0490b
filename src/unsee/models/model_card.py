"""What a model's own card says."""

from __future__ import annotations

from typing import Annotated, Any

from huggingface_hub import metadata_load
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from unsee.errors import InputError, invalid
from unsee.models.names import model_folder


class ModelCard(BaseModel):
    """What the card (README.md) of a model says under `unsee`; other fields are ignored.

    detectors       by kind, folders of classifiers; cards of earlier versions call them judges
    words           a file that lists what the model knows: objects with their other names, styles and so on
    steps           sampler steps that suit the model
    guidance_scale  g of u + g (c - u), likewise; 1 is none
    call            options of all calls of the pipeline, such as {max_sequence_length: 24}
    """

    model_config = ConfigDict(frozen=True)
    detectors: Annotated[dict[str, str], Field(validation_alias=AliasChoices("detectors", "judges"))] = {}
    words: str | None = None
    steps: Annotated[int, Field(ge=1)] | None = None
    guidance_scale: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    call: dict[str, Any] = {}


def model_card(model: str) -> ModelCard:
    """The card of a model by name, with places as absolute paths here; an empty one if it has none.

    Raises InputError if it says something that it cannot say.
    """
    path = model_folder(model)
    if path is None or not (path / "README.md").is_file():
        return ModelCard()
    said = (metadata_load(path / "README.md") or {}).get("unsee", {})
    try:
        card = ModelCard.model_validate(said)
    except ValidationError as error:
        raise InputError(f"the card of {model} cannot be read: {invalid(error)}") from error
    places = {kind: str(path / place) for kind, place in card.detectors.items()}
    return card.model_copy(update={"detectors": places, "words": str(path / card.words) if card.words else None})
