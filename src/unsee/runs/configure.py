"""What a configuration names: its model, and its method with the settings."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from unsee import methods
from unsee.errors import InputError, invalid, unknown
from unsee.models.load import open_model
from unsee.models.model import Model
from unsee.models.model_card import ModelCard
from unsee.runs.config import EvalConfig, RunConfig


def opened(config: RunConfig | EvalConfig, card: ModelCard) -> Model:
    """The model of a configuration, whose card has been read."""
    return open_model(
        config.model,
        card=card,
        revision=config.revision,
        variant=config.variant,
        call=config.call,
        trust_remote_code=config.trust_remote_code,
    )


def method_of(config: RunConfig, preset: str | None = None) -> str:
    """The name of the method that a configuration means, as RunConfig says, before its model is known."""
    if config.method:
        return config.method
    names = not any(concept.from_ or concept.image for concept in config.concepts)
    others = set(config.settings) - set(_settings(methods.find("balance")))
    misspelled = not any(others & set(_settings(methods.find(method))) for method in methods.names())
    return "balance" if names and preset is None and misspelled else "hybrid"


def configure(method_class: Any, settings: dict[str, Any], preset: str | None = None) -> Any:
    """A method with settings over those of a preset. Raises InputError on what is unknown or out of range."""
    presets = method_class.presets
    if preset is not None and preset not in presets:
        raise _elsewhere("preset", preset, method_class, lambda other: other.presets)
    if wrong := next((name for name in settings if name not in _settings(method_class)), None):
        raise _elsewhere("setting", wrong, method_class, _settings)
    try:
        return method_class(**{**(presets[preset] if preset else {}), **settings})
    except ValidationError as error:
        raise invalid(error, _settings(method_class)) from error


def _settings(method_class: Any) -> list[str]:
    return [setting.name for setting in fields(method_class)]


def _elsewhere(kind: str, name: str, method_class: Any, has: Callable[[Any], Collection[str]]) -> InputError:
    """The error for what a method does not have: who has it, or else the nearest that there is."""
    known = {method: methods.find(method) for method in methods.names()}
    others = [method for method, other in known.items() if name in has(other)]
    if not others:
        every = {one for other in known.values() for one in has(other)}
        here = {*has(method_class), *get_close_matches(name, every, n=1)} if kind == "setting" else every
        return unknown(kind, name, here)
    own = next((method for method, other in known.items() if other is method_class), method_class.__name__)
    return InputError(
        f"{own} has no {kind} {name!r}: leave it out, or take the method {' or '.join(others)}; {own} has "
        f"{', '.join(sorted(has(method_class)))}"
    )
