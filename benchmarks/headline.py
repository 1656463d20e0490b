"""The two pictures at the top of README.md: python -m benchmarks.headline

docs/headline.webp  "church" erased from the miniature by the default: a church and its neighbour, before and after
docs/trade-off.svg  what is left of church against what is kept of castle, of what benchmarks.ablation and
                    benchmarks.redteam measured
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from benchmarks import ablation, redteam
from benchmarks.evidence.record import Cell
from benchmarks.redteam_page import Rows, rows_of, strongest
from unsee.attacks import AXES
from unsee.evaluate.attacked import Attacked
from unsee.report.plots import COLOURS, MARKERS, SAID, Interval, per_cent, point, svg

DOCS = Path(__file__).parents[1] / "docs"
SEEDS, CELL, HEAD, GAP = 3, 144, 54, 8
TEXT = ("name", "discrete text")
"""Axes of attackers who have a prompt only."""
ATTACKED = {"esd": "esd-x", "negative": "negative prompt", "sld-medium": "sld"}
"""What benchmarks.redteam calls some of them."""


class Point(NamedTuple):
    """A method: per cent with the ends of the 95 % interval, left of the concept and kept of its neighbour."""

    left: Interval
    kept: Interval


def points(cells: Iterable[Cell]) -> dict[str, Point]:
    """Each method of docs/ablation.csv."""

    def share(one: Cell, column: str) -> Interval:
        row = one.row(*ablation.COLUMNS[column])
        assert row is not None, f"docs/ablation.csv has no {column!r} of {one.by}"
        return 100 * row.score.value, 100 * row.score.low, 100 * row.score.high

    left, kept = f"{ablation.CONCEPT} still seen", ablation.ALIKE
    return {one.by: Point(share(one, left), share(one, kept)) for one in cells if one.by != "base"}


def attacked(found: Mapping[str, Iterable[Attacked]]) -> dict[str, tuple[float, float]]:
    """By method what the strongest attack reaches, per cent that all detectors see: by a prompt, and by any means."""

    def reached(rows: Rows, axes: Iterable[str]) -> float:
        best = [row for axis in axes if (row := strongest(rows, axis))]
        return 100 * max((row.sure for row in best), default=0.0)

    every = {method: rows_of(records) for method, records in found.items()}
    return {method: (reached(rows, TEXT), reached(rows, AXES)) for method, rows in every.items()}


def plot(methods: Mapping[str, Point], attacks: Mapping[str, tuple[float, float]]) -> str:
    """The trade-off: filled as erased, hollow after the strongest attack that has a prompt only."""
    said = {name: f"{name} leaves {one.left[0]:g} % and keeps {one.kept[0]:g} %" for name, one in methods.items()}

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        per_cent(axes, "church still seen, %: left is better", "castle still seen, %: up is better")
        for k, (name, one) in enumerate(methods.items()):
            marker, colour = MARKERS[k % len(MARKERS)], COLOURS[k]
            point(axes, one.left, one.kept, said[name], colour=colour, marker=marker)
            axes.plot([], [], marker, color=colour, label=name)
            if (known := ATTACKED.get(name, name)) in attacks:
                reach, height = attacks[known][0], one.kept[0]
                axes.plot([one.left[0], reach], [height] * 2, ":", color=colour, clip_on=False)
                over = {"color": colour, "fillstyle": "none", "markersize": 8, "clip_on": False}
                (hollow,) = axes.plot([reach], [height], marker, **over)
                hollow.set_gid(f"{SAID}{name}: {reach:g} % after the strongest attack that has a prompt only")
        hollow = "hollow: after the strongest", "attack that has a prompt only,", "seen by both detectors"
        for note in (*hollow, "lines: 95 % intervals"):
            axes.plot([], [], " ", label=note)
        figure.legend(loc="outside right upper")

    return svg(680, 380, "; ".join(said.values()), draw, alone=True)


def trade_off() -> str:
    """docs/trade-off.svg as its tables are now."""
    return plot(points(ablation.read_cells()), attacked(redteam.recorded()))


def columns(pictures: Sequence[tuple[str, str, Sequence[Image.Image]]]) -> Image.Image:
    """Columns of pictures below a title and what it is, such as ("a church", "before", [...])."""
    bold, small = ImageFont.load_default(17), ImageFont.load_default(14)
    sheet = Image.new("RGB", (len(pictures) * (CELL + GAP) + 3 * GAP, HEAD + SEEDS * (CELL + GAP)), "#ffffff")
    draw = ImageDraw.Draw(sheet)
    for k, (title, what, some) in enumerate(pictures):
        left = GAP + k * (CELL + GAP) + (2 * GAP if k > 1 else 0)
        draw.text((left, 6), title, "#1b1b1f", bold)
        draw.text((left, 29), what, "#5a5a64", small)
        for row, picture in enumerate(some):
            sheet.paste(picture.resize((CELL, CELL), Image.Resampling.BICUBIC), (left, HEAD + row * (CELL + GAP)))
    return sheet


def main() -> None:
    import unsee

    pipe = unsee.load("mini")
    edit = unsee.Balance()(pipe, "church")
    prompts = ["a church", "a castle"]
    before = unsee.generate(pipe, prompts, n=SEEDS)
    with edit.applied(pipe):
        after = unsee.generate(pipe, prompts, n=SEEDS)
    shown = []
    for k, prompt in enumerate(prompts):
        rows = slice(k * SEEDS, (k + 1) * SEEDS)
        title = prompt if k == 0 else f"{prompt}, near it"
        shown += [(title, "before", before[rows]), (title, "after", after[rows])]
    columns(shown).save(DOCS / "headline.webp", quality=88)
    (DOCS / "trade-off.svg").write_text(trade_off(), encoding="utf-8")
    print(f"{DOCS / 'headline.webp'}, {DOCS / 'trade-off.svg'}")


if __name__ == "__main__":
    main()
