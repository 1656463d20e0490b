"""docs/forms.md: an edit of mini-flow in other forms: as a LoRA, in 8 and in 4 bits, on the distilled sibling.

    python -m benchmarks.forms [-n 128]
    python -m benchmarks.forms --draw     the page anew, from the table beside it, docs/forms.csv

The edit is the default's of "church". Its forms: a fresh pipeline that loads the exported LoRA, the edited transformer
packed by optimum-quanto (8 bits) and by bitsandbytes (NF4, 4 bits). `make .venv/quantisers/done` installs these; then
PYTHONPATH=.venv/quantisers. Each form is compared with the edit as it was made, picture by picture. The sibling draws
in four steps, so there the edit is compared with the sibling's own base, beside an edit that was made on it.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

import unsee
from benchmarks.evidence import suites
from benchmarks.evidence.__main__ import ALIKE, FLOW, SEED
from benchmarks.evidence.goals import Goal, said, state
from benchmarks.evidence.quantities import GAIN, LOSS, SHARE
from benchmarks.evidence.record import Cell, of, read, today, written
from benchmarks.saying import progress, say
from benchmarks.sized import four_bits
from unsee.edits.edit import Edit
from unsee.evaluate.cache import Memory
from unsee.evaluate.context import EvalContext, Variant
from unsee.evaluate.detectors import detectors_of
from unsee.evaluate.records import Measured
from unsee.evaluate.render import sampling_of
from unsee.evaluate.run import base, run
from unsee.io.atomic import write_whole
from unsee.models.words import words_of
from unsee.runs.export import export

TABLE = Path(__file__).parents[1] / "docs" / "forms.csv"
MODEL, SIBLING, CONCEPT, STEPS = "mini-flow", "mini-flow-turbo", "church", 10
MADE = "as it was made"
LIMIT = 2.0
PACKED = "4 bits, no edit"
SIBLINGS = ("on the sibling", "made on the sibling")
ROWS = (suites.REMOVED, suites.STYLED, *(f"{suites.NEAR}{one}" for one in (*ALIKE, "texts")), suites.KEPT)
HEAD = f"""# An edit in other forms

`{CONCEPT}` is erased from the second miniature by the default, and then asked of the edit in the forms in which people
use it. `python -m benchmarks.forms` writes this page and its table, [forms.csv](forms.csv): {STEPS} sampler steps, the
first seed {SEED:,}. A row is met if the whole 95 % interval lies within {LIMIT:g} points.
"""
ABOUT = {
    "as a LoRA": "A fresh pipeline of diffusers that loads what `unsee export --to diffusers-lora` wrote.",
    "8 bits": "The edited transformer, its linear layers packed to 8 bits by optimum-quanto.",
    "4 bits": "The edited transformer, its linear layers packed to NF4 by bitsandbytes.",
    PACKED: "The base in 4 bits beside the base: what packing loses without an edit.",
    "on the sibling": f"The same file on {SIBLING}, which was distilled from the model without it: `--force-base`.",
    "made on the sibling": f"An edit of {SIBLING} itself.",
}


@contextmanager
def put_in(pipe: Any, net: nn.Module) -> Iterator[None]:
    """Within the context a pipeline has another transformer."""
    own, pipe.transformer = pipe.transformer, net
    try:
        yield
    finally:
        pipe.transformer = own


def edited(edit: Edit) -> Any:
    """The transformer of a fresh pipeline, edited for good."""
    pipe = unsee.load(MODEL)
    edit.apply(pipe)
    return pipe.transformer


def eight_bits(net: Any) -> Any:
    from optimum.quanto import freeze, qint8, quantize

    quantize(net, weights=qint8)
    freeze(net)
    return net


def with_lora(edit: Edit, pipe: Any) -> Any:
    with tempfile.TemporaryDirectory() as place:
        path = export(edit, pipe, "diffusers-lora", Path(place) / "church.safetensors").path
        fresh = unsee.load(MODEL)
        fresh.load_lora_weights(str(path))
    return fresh.transformer


FORMS: dict[str, Callable[[Edit, Any], nn.Module]] = {
    "as a LoRA": with_lora,
    "8 bits": lambda edit, pipe: eight_bits(edited(edit)),
    "4 bits": lambda edit, pipe: four_bits(edited(edit)),
}


def measured(pipe: Any, variants: Sequence[Variant], n: int, steps: int | None) -> list[Measured]:
    """Rows of each variant but the first, with which the others are compared."""
    described = yaml.safe_load(FLOW["described"].read_text(encoding="utf-8"))
    concepts = variants[0].concepts
    context = EvalContext(pipe, detectors_of(pipe), words_of(pipe), concepts, n, SEED)
    asked = list(suites.suites(ALIKE, described).values())
    found = run(context, asked, variants, sampling_of(pipe, steps), Memory(), progress=progress("forms"))
    return list(found.measured)


def cells(n: int) -> list[Cell]:
    """Each form as a cell."""
    method, concepts = unsee.UCE(), (unsee.Concept(CONCEPT),)
    pipe, turbo = unsee.load(MODEL), unsee.load(SIBLING)
    edit, own = method(pipe, CONCEPT), method(turbo, CONCEPT)

    def variant(name: str, applied: Any) -> Variant:
        return Variant(name, "edit", name, concepts, applied)

    nets = {name: make(edit, pipe) for name, make in FORMS.items()}
    forms = [variant(name, partial(put_in, net=net)) for name, net in nets.items()]
    made = replace(base(concepts), applied=edit.applied)
    rows = measured(pipe, [made, *forms], n, STEPS)
    packed = variant(PACKED, partial(put_in, net=four_bits(unsee.load(MODEL).transformer)))
    rows += measured(pipe, [base(concepts), packed], n, STEPS)
    carried = edit.forced(turbo)
    there = [variant(name, one.applied) for name, one in zip(SIBLINGS, (carried, own), strict=True)]
    rows += measured(turbo, [base(concepts), *there], n, None)
    return [Cell(CONCEPT, one.name, f"{n}", today(), tuple(of(one.name, rows))) for one in [*forms, packed, *there]]


def cell(one: Measured, sibling: bool) -> str:
    """A row of a form: its share, and how much worse that is, with the interval; on the sibling beside its base."""
    gone = one.role == "removed"
    quantity = LOSS if not gone else SHARE if sibling else GAIN  # the sibling has no other edit to be compared with
    low, high = quantity.bounds(one) or (0.0, 0.0)
    worse = "" if quantity is SHARE else f"; {quantity.value(one) + 0.0:.1f}"
    met = said(state(Goal("", "", one.suite, lambda one: True, quantity, LIMIT), one), "?")
    return f"{SHARE.value(one):.1f}{worse} ({low:.1f} to {high:.1f}) {met}"


def shown(one: Cell) -> list[Measured]:
    """The rows of a form that the page shows."""
    return [row for row in one.rows if row.unit == "share" and row.key in ROWS]


def table(found: Sequence[Cell], sibling: bool) -> str:
    """Forms beside each other, a line for each row."""
    lines = ["| | base | n | " + " | ".join(one.by for one in found) + " |", "|---|---:|---:|" + "---:|" * len(found)]
    for row in shown(found[0]):
        texts = [cell(own, sibling) for one in found if (own := one.row(row.suite, row.key))]
        assert row.base
        lines.append(f"| {row.row} | {100 * row.base.value:.1f} | {row.score.n} | " + " | ".join(texts) + " |")
    return "\n".join(lines)


def page(found: Sequence[Cell]) -> str:
    """The page in Markdown."""
    own, there = ([one for one in found if (one.by in SIBLINGS) is here] for here in (False, True))
    parts = [
        HEAD,
        *(f"- **{name}**: {text}" for name, text in ABOUT.items()),
        f"\n## Beside the edit {MADE}\n",
        f"Per cent of pictures; then by how many points the form is worse than the edit {MADE}, which is `base`, on"
        " equal prompts and seeds, with the 95 % interval. The last column is beside the base without an edit.\n",
        table(own, False),
        "\n## On the distilled sibling\n",
        "What is erased: per cent of pictures, with the 95 % interval. What stays: per cent, then the points that it"
        " loses beside the sibling without an edit, which is `base`.\n",
        table(there, True),
    ]
    return "\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=128, help="pictures of what is erased")
    parser.add_argument("--draw", action="store_true", help="the page anew from its table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not options.draw:
        write_whole(TABLE, partial(Path.write_text, data=written(cells(options.n)), encoding="utf-8"))
    text = page(read(TABLE.read_text(encoding="utf-8")))
    TABLE.with_suffix(".md").write_text(text, encoding="utf-8")
    say(text)


if __name__ == "__main__":
    main()
