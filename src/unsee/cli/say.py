"""What a run of `erase` prints: its plan, its result, and the next command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from unsee.cli.flags import typed
from unsee.cli.terminal import (
    plain,
    shell,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unsee.concepts import Concept
    from unsee.runs.erase import Plan, Report
    from unsee.runs.forecast import Forecast


def say_plan(plan: Plan, folder: Path) -> None:
    """Print what a run would do."""
    from unsee.models.borrow import left_out
    from unsee.models.model import kind

    config, (trained, of) = plan.config, plan.trained
    shown = {k: "auto" if v is None else v for k, v in config.settings.items() if not isinstance(v, list | tuple)}
    lines = {
        "erase": several(config.concepts),
        "model": f"{plan.model.name}, {kind(plan.model).__name__} on {plan.model.device}"
        + (f", variant {config.variant}" if config.variant else ""),
        "method": ": ".join(filter(None, (config.method, ", ".join(f"{key} {value}" for key, value in shown.items())))),
        "changes": f"{trained:,} of {of:,} parameters ({100 * trained / of:.1f} %)",
        "pictures": f"{config.pictures} a row, {config.steps} steps, guidance scale {config.guidance_scale:g}",
        "seed": config.seed,
        **({"calls": ", ".join(f"{key} {value}" for key, value in config.call.items())} if config.call else {}),
        **({"without": " and ".join(gone) + ", which would change pictures"} if (gone := left_out(plan.model)) else {}),
        "writes": f"{folder}/",
    }
    for key, value in lines.items():
        print(f"{key:<8} {plain(str(value))}")
    for note in plan.notes:
        print(f"{'note':<8} {plain(typed(note))}")


def say_forecast(found: Forecast) -> None:
    """Print what a run would take, and the command that starts it."""
    print(f"\n{'':<34} {'passes':>10} {'with gradient':>13} {'pictures':>8} {'seconds':>8}")
    whole = type(found.work[0])("in all", *(sum(getattr(one, key) for one in found.work) for key in COUNTED))
    for one in (*found.work, whole):
        counts = f"{one.passes:>10,} {one.gradients:>13,} {one.pictures:>8,}"
        print(f"{plain(one.what)[:34]:<34} {counts} {found.seconds(one):>8,.1f}")
    one_pass = f"{1000 * found.one_pass:.3g} ms"
    print(f"about {lasting(found.seconds(whole))}, estimated from one pass of {one_pass} and one picture.")
    print("A pass with gradient counts as three. The time of detectors is not included.")
    print()
    if found.peak:
        print(f"{'memory':<8} {found.peak / 1e9:.2f} GB so far, with the model loaded and a few pictures drawn")
    if found.fit:
        print(f"{'fit':<8} {found.fit}")
    print(f"{'writes':<8} {plain(', '.join(map(str, found.files)))}")
    for warning in found.warnings:
        print(f"{'warning':<8} {plain(typed(warning))}")
    print(f"next: {shell(*(word for word in sys.argv[1:] if word != '--dry-run'))}")


def lasting(seconds: float) -> str:
    """A duration in seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


COUNTED = ("passes", "gradients", "pictures")
"""What is counted for each part of a run."""


def say_report(report: Report, plan: Plan) -> None:
    """Print what a run found, its files, and the next command."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from unsee.report.before_after import HEADER, cells, cut, notes, of_what
    from unsee.report.tradeoff import scale_taken

    table = Table(box=None, pad_edge=False, header_style="bold")
    for k, head in enumerate(HEADER):
        table.add_column(head, justify="right" if k else "left", max_width=None if k else 44)
    for row in cut(report.rows):
        if isinstance(row, str):
            table.add_row(row, style="dim")
        else:
            table.add_row(*(Text(plain(cell)) for cell in cells(row)), style="bold" if row.removed else "")
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print()
    console.print(table)
    print("difference: per cent of pictures, ≈ if chance explains it; picture change: grey levels of 255")
    taken = scale_taken(report.edit.card)
    for note in (*taken, *report.record["preserved"], *notes(report.rows), *of_what(report.rows)):
        print(plain(typed(note)))
    if not plan.detectors:
        few = f"no detector was given, so nothing was counted, and {plan.config.pictures} pictures a row were drawn"
        print(f"{few}: --detector objects=FOLDER names an image classifier, -n 48 draws more")
    seconds, peak = report.record["seconds"], report.record["peak_memory_bytes"]
    print("\n" + ", ".join(f"{stage} {value:.1f} s" for stage, value in seconds.items()), end="")
    print(f", peak memory {peak / 1e9:.2f} GB" if peak else "")
    for name in ("index.html", "before-after.png", "edit.safetensors", "run.json"):
        if (report.folder / name).is_file():
            print(f"  {report.folder / name}")
    print(f"next: {_next(report, plan)}")


def _next(report: Report, plan: Plan) -> str:
    """The command that draws with the edit, as it can be typed."""
    from unsee.evaluate.words import article
    from unsee.runs.folder import EDIT

    config, base = plan.config, report.edit.card.base
    word = config.concepts[0].from_ or config.concepts[0].erase
    way = next((way for way in config.settings.get("templates", ()) if way != "{}"), "{}")
    prompt = way.replace("a {}", article(word)) if "a {}" in way else way.format(word)
    default = type(config).model_fields["model"].default
    named = config.model == default or base.startswith(f"{config.model}@")  # a hub id, at the commit of the run
    words = ["generate", prompt, "--edit", report.folder / EDIT, *([] if named else ["--model", config.model])]
    words += ["--variant", config.variant] if config.variant else []
    return shell(*words, *(["--trust-remote-code"] if config.trust_remote_code else []))


def several(concepts: Sequence[Concept], most: int = 8) -> str:
    """Some concepts in a line: of many the first ones, and how many more there are."""
    more = f"; and {len(concepts) - most} more" if len(concepts) > most else ""
    return "; ".join(map(_describe, concepts[:most])) + more


def _describe(concept: Concept) -> str:
    text = concept.erase
    for key, word in (("from", concept.from_), ("anchor", concept.anchor)):
        text += f", {key} {word}" if word else ""
    for key, words in (("also", concept.synonyms), ("keep", concept.keep)):
        text += f", {key} {' / '.join(words)}" if words else ""
    return text
