"""The two pictures at the top of README.md: python -m benchmarks.headline

docs/headline.webp  "church" erased from the miniature by the default: a church and its neighbour, before and after
docs/trade-off.svg  what is left of church against what is kept of castle, of the tables that benchmarks.ablation and
                    benchmarks.redteam wrote: docs/ablation.md, docs/redteam.md
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

DOCS = Path(__file__).parents[1] / "docs"
SEEDS, CELL, HEAD, GAP = 3, 144, 54, 8
TEXT = ("name", "discrete text")
"""Axes of attackers who have a prompt only."""
SHAPES = {"balance": "M-6 0L0 -6L6 0L0 6Z", "uce": "M-5 -5H5V5H-5Z", "hybrid": "M0 -6L6 5H-6Z", "esd": "M0 6L6 -5H-6Z"}
"""Marks by method; any other is a circle."""
CIRCLE = "M-5 0A5 5 0 1 0 5 0A5 5 0 1 0 -5 0Z"
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 640, 380, 64, 20, 420, 320
STYLE = """<style>
svg { background: #fff; color: #1b1b1f; font: 13px system-ui, sans-serif }
@media (prefers-color-scheme: dark) { svg { background: #16161a; color: #e8e8ee } }
</style>"""


class Point(NamedTuple):
    """A method: per cent with the ends of the 95 % interval, left of the concept and kept of its neighbour."""

    left: tuple[float, float, float]
    kept: tuple[float, float, float]


def rows(text: str, *first: str) -> list[dict[str, str]]:
    """The rows of the first table of a page whose first headings are these."""
    lines = iter(text.splitlines())
    head = next(cells(line) for line in lines if line.startswith("|") and cells(line)[: len(first)] == [*first])
    next(lines)
    found = []
    for line in lines:
        if not line.startswith("|"):
            break
        found.append(dict(zip(head, cells(line), strict=True)))
    return found


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def share(text: str) -> tuple[float, float, float]:
    """ "96.0 (90.2 to 98.4)" as numbers."""
    value, low, high = map(float, re.findall(r"[\d.]+", text))
    return value, low, high


def points(ablation: str) -> dict[str, Point]:
    """Each method of docs/ablation.md."""
    found = {}
    for row in rows(ablation, ""):
        if name := re.fullmatch(r"`(.*)`", row[""]):
            found[name[1]] = Point(share(row["church still seen"]), share(row["castle"]))
    return found


def attacked(redteam: str) -> dict[str, tuple[float, float]]:
    """By method the strongest attack of docs/redteam.md, per cent that all detectors see: of prompts, and of all."""
    found: dict[str, tuple[float, float]] = {}
    for row in rows(redteam, "edit", "axis"):
        success = row["success"]
        confirmed = re.search(r"confirmed ([\d.]+)", success)
        value = float(confirmed[1] if confirmed else re.findall(r"[\d.]+", success)[0])
        text, every = found.get(row["edit"], (0.0, 0.0))
        found[row["edit"]] = (max(text, value) if row["axis"] in TEXT else text, max(every, value))
    return found


def plot(methods: Mapping[str, Point], attacks: Mapping[str, tuple[float, float]]) -> str:
    """The trade-off as SVG, in the colours of the reader's theme."""

    def x(value: float) -> float:
        return round(LEFT + (RIGHT - LEFT) * value / 100, 1)

    def y(value: float) -> float:
        return round(BOTTOM - (BOTTOM - TOP) * value / 100, 1)

    def mark(name: str, at: tuple[float, float], hollow: bool = False) -> str:
        fill = 'fill="none" stroke="currentColor" stroke-width="1.6"' if hollow else 'fill="currentColor"'
        return f'<path d="{SHAPES.get(name, CIRCLE)}" transform="translate({at[0]} {at[1]})" {fill}/>'

    said = "; ".join(f"{name} leaves {one.left[0]:g} % and keeps {one.kept[0]:g} %" for name, one in methods.items())
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" fill="currentColor">',
        f"<title>{html.escape(said)}</title>",
        STYLE,
        f'<path d="M{LEFT} {TOP}V{BOTTOM}H{RIGHT}" fill="none" stroke="currentColor"/>',
    ]
    for tick in range(0, 101, 25):
        grid = f"M{LEFT} {y(tick)}H{RIGHT}M{x(tick)} {TOP}V{BOTTOM}"
        parts.append(f'<path d="{grid}" stroke="currentColor" stroke-opacity=".12"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(tick) + 4}" text-anchor="end">{tick}</text>')
        parts.append(f'<text x="{x(tick)}" y="{BOTTOM + 18}" text-anchor="middle">{tick}</text>')
    middle = (LEFT + RIGHT) / 2
    parts.append(
        f'<text x="{middle}" y="{BOTTOM + 42}" text-anchor="middle">church still seen, %: left is better</text>'
    )
    turn = f'transform="translate(18 {(TOP + BOTTOM) / 2}) rotate(-90)"'
    parts.append(f'<text {turn} text-anchor="middle">castle still seen, %: up is better</text>')
    for k, (name, one) in enumerate(methods.items()):
        at = x(one.left[0]), y(one.kept[0])
        bars = f"M{x(one.left[1])} {at[1]}H{x(one.left[2])}M{at[0]} {y(one.kept[1])}V{y(one.kept[2])}"
        parts.append(f'<path d="{bars}" stroke="currentColor" stroke-opacity=".5"/>')
        parts.append(mark(name, at))
        if name in attacks:
            reach = attacks[name][0]
            parts.append(f'<path d="M{at[0]} {at[1]}H{x(reach)}" stroke="currentColor" stroke-dasharray="2 4"/>')
            parts.append(mark(name, (x(reach), at[1]), hollow=True))
        row = TOP + 22 + 26 * k
        parts += [mark(name, (RIGHT + 30, row - 4)), f'<text x="{RIGHT + 46}" y="{row}">{html.escape(name)}</text>']
    row = TOP + 40 + 26 * len(methods)
    notes = ["hollow: after the strongest", "attack that has a prompt only", "lines: 95 % intervals"]
    for k, note in enumerate(notes):
        parts.append(f'<text x="{RIGHT + 24}" y="{row + 18 * k}" fill-opacity=".75">{note}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def trade_off() -> str:
    """docs/trade-off.svg as its tables are now."""
    return plot(points((DOCS / "ablation.md").read_text()), attacked((DOCS / "redteam.md").read_text()))


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
