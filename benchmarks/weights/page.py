"""docs/weights.md and its plots, from what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from benchmarks.drawing import heat
from benchmarks.evidence.page import lined
from benchmarks.weights.measure import CONCEPT, Selected, Traced
from benchmarks.weights.parts import ALL, SELECTIONS
from unsee.evaluate.statistics import Score
from unsee.report.plots import COLOURS, per_cent, point, svg

ALL_BLOCKS = "all blocks"


@dataclass(frozen=True)
class Found:
    """All that is known of one model.

    said  how it was measured, as SECTION names it
    """

    model: str
    said: Mapping[str, object]
    selected: Sequence[Selected]
    traced: Sequence[Traced]


HEAD = """# Which weights carry a concept

This page says which weights of a denoiser hold a concept, by two measurements of every part. `{command}` writes it.

1. **Selections**: if only these weights may change, how much of a concept can be removed, and what else goes?
2. **Causal tracing**: where does what the prompt says reach the picture? The activation that a layer has for another
   prompt, the anchor, takes the place of its own (`unsee.denoising.trace` has the formula and its sources).

How to read the numbers:

- **Removed**, **kept**: shares of what the concept, or another known word, adds to recorded predictions
  (`unsee.runs.tradeoff`). The edit is scaled to the largest harmonic mean of both; **scale** is what was taken.
- **Seen**: per cent of pictures that show what the prompt names, with Wilson's 95 % interval, at that scale. Before the
  arrow the base model's, on equal prompts and seeds.
- **Moved**: how far the prediction goes from the concept's to the anchor's, in per cent of the way. Layers of all
  blocks that are patched together count once, so single blocks need not add up.
- A selection that matches the same weights as one above it is left out.
"""
SECTION = """## {model}: selections

Erased: {concept}, by `{method}` with nothing but the selection changed. Pictures: {pictures} of each row, seeds from
{seed}, {steps} steps, guidance scale {guidance:g}. Nearest texts: {near}.
"""
TRACE = """## {model}: causal tracing

Asked for: {concept}. Anchor: {anchor}. {runs} recorded runs of {steps} steps; the interval is a bootstrap over runs.
Pictures: {pictures} whole runs in which all blocks of a kind hold the anchor's activations in each step.
"""


def page(found: Sequence[Found], command: str, stem: str) -> str:
    parts = [HEAD.format(command=command)]
    for one in found:
        base = f"{stem}-{one.model.rstrip('/').rpartition('/')[2]}"
        if one.selected:
            parts += [SECTION.format(model=one.model, **one.said), image("Removed against kept", f"{base}-selections")]
            parts.append(selection_table(one.selected))
        if one.traced:
            parts += [TRACE.format(model=one.model, **one.said), image("Moved, by layer and block", f"{base}-blocks")]
            parts += [image("Moved, by layer and step", f"{base}-steps"), trace_table(one.traced)]
    return "\n\n".join(parts) + "\n"


def image(title: str, stem: str) -> str:
    return f"![{title}]({stem}.svg)"


def share(score: Score) -> str:
    return f"{100 * score.value:.1f} ({100 * score.low:.1f} to {100 * score.high:.1f})"


def taken(one: Selected) -> tuple[float, float]:
    """(removed, kept) at the scale of the edit."""
    return next((removed, kept) for scale, removed, kept in one.curve if scale == one.scale)


def selection_table(found: Sequence[Selected]) -> str:
    rows = list(found[0].seen)
    head = ["selection", "weights", "removed", "kept", "scale", *(f"{row}, seen" for row in rows), "n"]
    lines = [head]
    for one in found:
        removed, kept = taken(one)
        size = f"{one.weights[0] / 1e6:.2f} M, {100 * one.weights[0] / one.weights[1]:.1f} %"
        seen = [f"{100 * one.seen[row][0].value:.1f} -> {share(one.seen[row][1])}" for row in rows]
        n = str(one.seen[CONCEPT][1].n)
        lines.append([one.name, size, f"{100 * removed:.1f}", f"{100 * kept:.1f}", f"{one.scale:g}", *seen, n])
    return lined(lines)


def trace_table(found: Sequence[Traced]) -> str:
    lines = [["layer, in all blocks", "moved", "concept seen", "anchor seen", "n"]]
    for one in found:
        if one.block == ALL:
            drawn = [share(one.concept), share(one.anchor), str(one.concept.n)] if one.concept and one.anchor else []
            lines.append([one.kind, share(one.moved), *(drawn or ["", "", ""])])
    return lined(lines)


def plots(found: Found) -> dict[str, str]:
    """SVGs by the end of their names."""
    made = {}
    if found.selected:
        made["selections"] = tradeoff(found)
    if found.traced:
        blocks = list(dict.fromkeys(one.block for one in found.traced if one.block != ALL))
        by: dict[str, dict[str, float]] = {}
        steps: dict[str, dict[str, float]] = {}
        for one in found.traced:
            by.setdefault(one.kind, {})[ALL_BLOCKS if one.block == ALL else one.block] = one.moved.value
            if one.block == ALL:
                steps[one.kind] = {str(k + 1): value for k, value in enumerate(one.steps)}
        title = f"{found.model}: where the prompt reaches the prediction"
        unit = "per cent of the way from the concept's prediction to the anchor's"
        made["blocks"] = heat(f"{title}, by block", by, [*blocks, ALL_BLOCKS], unit)
        count = max(map(len, steps.values()))
        made["steps"] = heat(f"{title}, by step", steps, [str(k + 1) for k in range(count)], f"{unit}; all blocks")
    return made


def tradeoff(found: Found) -> str:
    """Removed against kept of recorded predictions: lines over scales, a dot at the one taken."""
    groups: dict[str, list[Selected]] = {"the text's side": [], "other parts": [], "blocks": []}
    for one in found.selected:
        text = one.name.startswith(("text", "cross-attention"))
        group = "the text's side" if text else "other parts" if one.name in SELECTIONS else "blocks"
        for name in groups if one.name == ALL else [group]:
            groups[name].append(one)
    shown = {title: some for title, some in groups.items() if some}

    def draw(figure: Figure) -> None:
        figure.supxlabel("lines: scales of an edit; dot: the scale taken; up and right is better", fontsize=12)
        for axes, (title, some) in zip(figure.subplots(len(shown), 1, squeeze=False).flat, shown.items(), strict=True):
            per_cent(axes, "removed, per cent", "kept, per cent")
            axes.set_title(title)
            for k, one in enumerate(some):
                colour, style = COLOURS[k % len(COLOURS)], "--" if k >= len(COLOURS) else "-"
                removed, kept = ([100 * step[k] for step in one.curve] for k in (1, 2))
                axes.plot(removed, kept, style, color=colour, linewidth=1.8, label=one.name, clip_on=False)
                x, y = (100 * value for value in taken(one))
                said = f"{one.name}: {x:.0f} % removed, {y:.0f} % kept"
                point(axes, (x, x, x), (y, y, y), said, colour=colour)
            axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1), borderaxespad=0)

    names = ", ".join(one.name for one in found.selected)
    title = f"{found.model}: removed against kept of recorded predictions, by selection ({names})"
    return svg(640, 330 * len(shown) + 30, title, draw, alone=True)
