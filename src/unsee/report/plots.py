"""Plots as SVG, by matplotlib, in the colours of the reader's theme."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from unsee.evaluate.statistics import Score

INK = "#010203"
"""Stands for the reader's own text colour while matplotlib draws."""
COLOURS = (
    "#4269d0", "#ff725c", "#3ca951", "#a463f2", "#d99a00", "#2aa4a4", "#9c6b4e", "#e8609a", "#6b8e23", "#ef5675",
    "#5a7d9a", "#7a5195", "#c0a060", "#b35c2a",
)  # fmt: skip
"""Colours of series; each stands out from the background of both themes."""
MARKERS = ("o", "s", "D", "^", "v", "P", "*", "<", ">", "p")
SETTINGS: Any = {
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    "font.family": "DejaVu Sans",
    "font.size": 12,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.facecolor": "none",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "grid.color": INK,
    "grid.alpha": 0.12,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "unsee",  # ids are the same in every run
    "text.parse_math": False,  # a name may hold $
}
THEMES = """<style>
svg { background: #fff; color: #1b1b1f }
@media (prefers-color-scheme: dark) { svg { background: #16161a; color: #e8e8ee } }
</style>"""
SAID = "said:"
NOTHING = dict.fromkeys(("Creator", "Date", "Format", "Type"))
"""Metadata that matplotlib would write, such as the day."""


def svg(width: int, height: int, title: str, draw: Callable[[Figure], None], *, alone: bool = False) -> str:
    """The SVG of what `draw` puts into a figure of so many pixels.

    title  what it shows, for those who do not see it
    alone  whether it is a file: it then has a background, light or dark as the reader's theme; else its page's
    """
    stream = io.StringIO()
    with matplotlib.rc_context(SETTINGS):
        figure = Figure((width / 72, height / 72), dpi=72, layout="constrained")
        draw(figure)
        figure.savefig(stream, format="svg", transparent=True, metadata=NOTHING)
    body = stream.getvalue()
    body = body[body.index(">", body.index("<svg")) + 1 :]
    for gone in (r"<defs>\s*<style.*?</defs>", r"<defs>\s*<clipPath.*?</defs>", r' clip-path="[^"]*"'):
        body = re.sub(gone, "", body, flags=re.S)  # a style would be that of the whole page; nothing is cut
    body = re.sub(rf'<g id="{SAID}([^"]*)">', r"<g><title>\1</title>", body)
    body = re.sub(r'<g id="[^"]*"', "<g", body)  # counted in each plot, so not unique in a page of several
    body = body.replace(INK, "currentColor").replace("'DejaVu Sans'", "system-ui, sans-serif")
    size = "" if alone else f'width="{width}" height="{height}" '
    head = f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {size}'
    head += f'viewBox="0 0 {width} {height}" role="img" fill="currentColor"><title>{html.escape(title)}</title>'
    return re.sub(r" +$", "", f"{head}{THEMES if alone else ''}{body}", flags=re.M).strip() + "\n"


def per_cent(axes: Axes, across: str, up: str) -> None:
    """Both axes from 0 to 100, and what they count."""
    axes.set(xlabel=across, ylabel=up, xlim=(0, 100), ylim=(0, 100))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(range(0, 101, 25))


Interval = tuple[float, float, float]
"""A value, and the ends of its interval."""


def point(axes: Axes, x: Interval, y: Interval, said: str, *, colour: str = INK, marker: str = "o") -> None:
    """A mark with both intervals, which says what it is where a reader points at it."""
    over: Any = {"color": colour, "alpha": 0.5, "linewidth": 1.2, "clip_on": False}
    axes.plot([x[1], x[2]], [y[0]] * 2, **over)
    axes.plot([x[0]] * 2, [y[1], y[2]], **over)
    (mark,) = axes.plot([x[0]], [y[0]], marker, color=colour, markersize=7, clip_on=False)
    mark.set_gid(SAID + said)


@dataclass(frozen=True)
class Mark:
    """A model in a plot of what is still seen (x) against what is kept (y), in per cent.

    text   what it is; series: what it has its marker from, and the legend its name
    """

    text: str
    series: str
    x: Interval
    y: Interval


def mark(text: str, series: str, gone: Score, kept: Score) -> Mark:
    """The mark of two shares."""
    x, y = ((100 * one.value, 100 * one.low, 100 * one.high) for one in (gone, kept))
    return Mark(text, series, x, y)


def trade_off(marks: Sequence[Mark], removed: str, kept: str, *, alone: bool = False) -> Markup:
    """What is left of what must go against what is kept, a marker for each series."""
    series = list(dict.fromkeys(one.series for one in marks))

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        per_cent(axes, f"{removed}, %: left is better", f"{kept}, %: up is better")
        for one in marks:
            k = series.index(one.series)
            point(axes, one.x, one.y, said(one), marker=MARKERS[k % len(MARKERS)], colour=COLOURS[k % len(COLOURS)])
        for k, name in enumerate(series):
            axes.plot([], [], MARKERS[k % len(MARKERS)], color=COLOURS[k % len(COLOURS)], label=name)
        figure.legend(loc="outside lower left", ncols=2 if max(map(len, series), default=0) < 24 else 1)

    def said(one: Mark) -> str:
        return f"{one.text}: {one.x[0]:.1f} %, {one.y[0]:.1f} %"

    title = f"{removed}, left is better, against {kept}, up is better; {'; '.join(map(said, marks))}"
    return Markup(svg(460, 320 + 18 * -(-len(series) // 2), title, draw, alone=alone))


def scales(points: Sequence[tuple[float, float, float]], taken: float) -> Markup:
    """A curve of (scale, removed, kept), shares; the scale that was taken is marked."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        per_cent(axes, "removed, %: right is better", "kept, %: up is better")
        axes.plot([100 * x for _, x, _ in points], [100 * y for _, _, y in points], color=INK, clip_on=False)
        for scale, x, y in points:
            size = 9 if scale == taken else 4
            (dot,) = axes.plot([100 * x], [100 * y], "o", color=INK, markersize=size, clip_on=False)
            dot.set_gid(f"{SAID}scale {scale:g}: {100 * x:.1f} % removed, {100 * y:.1f} % kept")
            if scale == taken:
                axes.annotate(f"{scale:g}", (100 * x, 100 * y), (-8, -14), textcoords="offset points", ha="right")

    title = "Trade-off curve: what is removed against what is kept, by the edit's scale"
    return Markup(svg(460, 300, title, draw))


def fits(named: Mapping[str, tuple[Sequence[tuple[float, float, float]], int]]) -> Markup:
    """Errors of fits on held-out runs, a row of two for each, each to a scale of its own.

    named  curves of (updates, error of the concept, error of what must stay), and how many updates there were to be
    """
    parts = ("of the concept", "of what must stay")
    said = [
        f"{name}, {what}: {curve[-1][k]:.2g} at the end, at most {max(one[k] for one in curve):.2g}"
        for name, (curve, _) in named.items()
        for k, what in enumerate(parts, start=1)
    ]

    def draw(figure: Figure) -> None:
        every = figure.subplots(len(named), 2, squeeze=False)
        for row, (name, (curve, updates)) in zip(every, named.items(), strict=True):
            for k, (axes, what) in enumerate(zip(row, parts, strict=True), start=1):
                axes.plot([one[0] for one in curve], [one[k] for one in curve], color=INK)
                axes.set(title=f"{name}, {what}" if len(named) > 1 else what, xlabel="updates")
                axes.set(xlim=(0, max(updates, 1)), ylim=(0, None))
                axes.ticklabel_format(axis="y", scilimits=(-2, 3))
                if (last := curve[-1][0]) < updates:
                    axes.axvline(last, color=INK, linestyle="--", linewidth=1)
                    side, away = ("right", -4) if last > updates / 2 else ("left", 4)
                    axes.annotate(
                        "stopped early", (last, 0.92), (away, 0), ha=side,
                        xycoords=("data", "axes fraction"), textcoords="offset points",
                    )  # fmt: skip

    title = "Errors on held-out runs. " + "; ".join(said)
    return Markup(svg(720, 220 * len(named), title, draw))
