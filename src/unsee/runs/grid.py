"""The grid of a sweep: which cells a file of settings stands for, and the name of each, made of its content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from itertools import product
from pathlib import Path
from typing import Any

from unsee import attacks, methods
from unsee.errors import InputError, unknown
from unsee.evaluate import suites
from unsee.models.model_card import model_card
from unsee.models.names import BUNDLED, source
from unsee.runs.config import AttackConfig, EvalConfig, RunConfig, SweepConfig, build
from unsee.runs.configure import configure, method_of
from unsee.runs.folder import folder_name
from unsee.runs.siege import BUDGETS
from unsee.versions import code, versions


@dataclass(frozen=True)
class Cell:
    """One cell of a grid: a run of erase, and how its edit is measured and attacked.

    name     of its folder: its words, and a hash of all that its numbers depend on
    chosen   settings as the grid gives them
    """

    name: str
    config: RunConfig
    chosen: Mapping[str, Any]
    evaluate: Mapping[str, Any] | None = None
    attack: AttackConfig | None = None


def cells(config: SweepConfig) -> list[Cell]:
    """The cells of a grid, in order, each once. Nothing is loaded.

    Raises InputError, before anything runs, on a name or a setting that does not exist.
    """
    evaluate, attack = _evaluate(config.evaluate), _attack(config.attack)
    grid = ("model", "concepts", "method", "settings", "seed")
    if double := next((name for name in config.erase if name in grid), None):
        raise InputError(f"erase: {double!r} is an axis of the grid: move it from there to '{_axis(double)}: [...]'")
    for model in config.models:
        model_card(model)
    chosen = config.methods or (None,)
    if idle := next((name for name in config.settings if name not in config.methods), None):
        raise unknown("method under settings", idle, config.methods)
    found: dict[str, Cell] = {}
    for model, concepts, method in product(config.models, config.concepts, chosen):
        for settings, seed in product(config.settings.get(method or "", ({},)), config.seeds):
            values = {"model": model, "concepts": concepts, "method": method, "settings": settings, "seed": seed}
            run = _part("erase", RunConfig, {**config.erase, **values})
            name = method_of(run)
            configure(methods.find(name), dict(settings))
            content = {
                "run": run.model_dump(mode="json"),
                "evaluate": evaluate,
                "attack": attack and attack.model_dump(mode="json"),
                "model": _content(model),
                "code": _code(name, evaluate, attack),
                "versions": versions(),
            }
            key = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:12]
            words = folder_name([*(one.erase for one in run.concepts), name, str(seed)])
            found.setdefault(key, Cell(f"{words}-{key}", run, settings, evaluate, attack))
    return list(found.values())


def said(cell: Cell) -> dict[str, Any]:
    """What a cell is, in plain values: for its row in the table."""
    run = cell.config
    return {
        "model": run.model,
        "concepts": [one.erase for one in run.concepts],
        "method": method_of(run),
        "settings": dict(cell.chosen),
        "seed": run.seed,
    }


def _axis(field: str) -> str:
    return field if field.endswith("s") else f"{field}s"


def _part(name: str, kind: type[Any], values: Mapping[str, Any]) -> Any:
    """A part of the file as a configuration. Raises InputError that names the part."""
    try:
        return build(dict(values), kind)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def _evaluate(values: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if values is None:
        return None
    if "model" in values or "edits" in values:
        raise InputError("evaluate: leave out 'model' and 'edits', which each cell has of its own")
    whole: EvalConfig = _part("evaluate", EvalConfig, {"model": "", **values})
    for suite in whole.suites:
        suites.find(suite)
    if not (whole.suites or whole.tables):
        raise InputError(f"evaluate: name what to measure: 'suites', of {', '.join(suites.names())}, or 'tables'")
    return dict(values)


def _attack(values: Mapping[str, Any] | None) -> AttackConfig | None:
    if values is None:
        return None
    found: AttackConfig = _part("attack", AttackConfig, values)
    for name in found.attacks:
        attacks.find(name)
    if found.budget not in BUDGETS:
        raise unknown("budget", found.budget, BUDGETS)
    return found


def _code(method: str, evaluate: Mapping[str, Any] | None, attack: AttackConfig | None) -> list[str]:
    """Hashes of the code that makes a cell's numbers."""
    modules = [_module("methods", method), "unsee.evaluate.suites.summary", "unsee.evaluate.run"]
    modules += [_module("suites", name) for name in (evaluate or {}).get("suites", ())]
    if attack:
        modules += ["unsee.runs.attack", *(_module("attacks", name) for name in attack.attacks or attacks.names())]
    return [code(module) for module in modules]


def _module(group: str, name: str) -> str:
    return next(iter(entry_points(group=f"unsee.{group}", name=name))).module


@cache
def _content(model: str) -> str:
    """A hash of a model's files. Of a hub id, whose files may not be here yet, its name: give it a revision."""
    parts = source(model)
    digest = hashlib.blake2b(model.encode() if parts.base not in BUNDLED else b"")
    places = [BUNDLED.get(parts.base) or Path(parts.base).expanduser(), *map(Path, parts.loras)]
    for place in places:
        for file in _files(place):
            digest.update(str(file.relative_to(place)).encode())
            with file.open("rb") as raw:
                digest.update(hashlib.file_digest(raw, "blake2b").digest())
    return digest.hexdigest()


def _files(place: Path) -> Sequence[Path]:
    return [place] if place.is_file() else sorted(file for file in place.rglob("*") if file.is_file())
