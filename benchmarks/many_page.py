"""The page and the plot of benchmarks.many, from its cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from unsee.evaluate.statistics import Score, rate
from unsee.report.plots import COLOURS, SAID, svg
from unsee.spelling import counted

TIMES = 2000
"""Draws of a bootstrap."""
GOALS = {
    1: "erased 0, others -0.5 points", 10: "erased <= 1, others >= 99", 20: "erased <= 1, others >= 98.5",
    40: "erased <= 2, others >= 96", 60: "Ho >= 92", 100: "Ho >= 88",
}  # fmt: skip
"""What must be reached, in per cent, by number of concepts."""

Seen = Mapping[str, Sequence[bool]]


@dataclass(frozen=True)
class Base:
    """What all cells of a page share.

    protocol  how pictures were drawn and of which model
    seen      by word, in which of its pictures the base model shows it
    space     how many dimensions the words take in what the denoiser reads, see `benchmarks.many.text_space`
    """

    protocol: Mapping[str, Any]
    seen: Seen
    space: Mapping[str, float]


@dataclass(frozen=True)
class Cell:
    """One method on one draw of objects.

    erased, others, base  by word, in which of its pictures it is seen: of what is erased and of all others under the
                          edit, and of all before
    seconds               of one core until the edit exists
    """

    method: str
    number: int
    draw: int
    erased: Seen
    others: Seen
    base: Seen
    seconds: float


@dataclass(frozen=True)
class Result:
    """A method on all draws of a number of concepts. Shares are 0 to 1, with their 95 % intervals.

    erased  share of pictures of erased words that still show them; Wilson's interval over pictures
    kept    pictures of others in which they are seen, divided by those of the base; bootstrap over words
    ho      harmonic mean of 1 - erased and kept (at most 1); likewise
    """

    erased: Score
    kept: Score
    ho: Score


def harmonic(erased: float, kept: float) -> float:
    """Ho = 2 (1 - e) k / (1 - e + k), with k at most 1; 0 where both are."""
    removed, kept = 1 - erased, min(1.0, kept)
    return 2 * removed * kept / (removed + kept) if removed + kept else 0.0


def result(cells: Sequence[Cell], seed: int = 0) -> Result:
    """The result of some cells of one method and one number, all their words together."""
    gone = np.array([(sum(hits), len(hits)) for cell in cells for hits in cell.erased.values()], float)
    stay = np.array([(sum(cell.others[x]), sum(cell.base[x])) for cell in cells for x in cell.others], float)
    rng = np.random.default_rng(seed)
    kept, ho = [], []
    for _ in range(TIMES):
        e, o = (some[rng.integers(0, len(some), len(some))].sum(0) for some in (gone, stay))
        kept.append(o[0] / max(1.0, o[1]))
        ho.append(harmonic(e[0] / e[1], kept[-1]))
    (seen, pictures), (now, before) = gone.sum(0), stay.sum(0)
    share = now / max(1.0, before)

    def score(value: float, draws: Sequence[float], n: int) -> Score:
        low, high = np.quantile(draws, [0.025, 0.975])
        return Score(float(value), float(low), float(high), n)

    shown = sum(len(hits) for cell in cells for hits in cell.others.values())
    hits = [True] * int(seen) + [False] * int(pictures - seen)
    return Result(rate(hits), score(share, kept, shown), score(harmonic(seen / pictures, share), ho, shown))


def worst(cells: Sequence[Cell], most: int = 5) -> str:
    """The others that lose most, and what of the erased is still seen most: pictures now of those before."""
    lost: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    now, before, shown = Counter[str](), Counter[str](), Counter[str]()
    for cell in cells:
        for word, hits in cell.others.items():
            lost[word] += sum(cell.base[word]) - sum(hits)
            now[word] += sum(hits)
            before[word] += sum(cell.base[word])
        for word, hits in cell.erased.items():
            seen[word] += sum(hits)
            shown[word] += len(hits)
    first = [f"{x} {now[x]}/{before[x]}" for x in sorted(lost, key=lambda x: (-lost[x], x))[:most] if lost[x] > 0]
    still = [f"{x} {seen[x]}/{shown[x]}" for x in sorted(seen, key=lambda x: (-seen[x], x))[:most] if seen[x]]
    return "; ".join(filter(None, [", ".join(first), still and f"still seen: {', '.join(still)}"]))


def per_cent(score: Score) -> str:
    low, high = 100 * score.low, 100 * score.high
    return f"{100 * score.value:.1f}" + (f" ({low:.1f} to {high:.1f})" if low < high else "")


def row(cells: Sequence[Cell]) -> str:
    """Cells of one method and one number, as a line of the table without its first columns."""
    found = result(cells)
    seconds = sum(cell.seconds for cell in cells) / len(cells)
    shares = f"{per_cent(found.erased)}, n {found.erased.n} | {per_cent(found.kept)}, n {found.kept.n}"
    return f"{shares} | {per_cent(found.ho)} | {worst(cells)} | {seconds:.1f} | {len(cells)}"


def grouped(cells: Sequence[Cell]) -> dict[tuple[int, str], list[Cell]]:
    """By number of concepts and method, in order."""
    order = list(dict.fromkeys(cell.method for cell in cells))
    found: dict[tuple[int, str], list[Cell]] = {}
    for cell in sorted(cells, key=lambda one: (one.number, order.index(one.method), one.draw)):
        found.setdefault((cell.number, cell.method), []).append(cell)
    return found


HEAD = """# Many concepts at once

This page says how many of the {words} objects that {model} draws one edit can erase, and what it then does to the
others. The objects are drawn at random, in up to {draws} for each number; the last column counts them. A draw of more
objects holds those of fewer.

`{command}` writes this page from its records. Pictures: {steps} steps, guidance scale {guidance:g}, {each} of each
other object and at least as many of each erased one. A picture counts if the object is the first guess of the detector.

Balance preserves the words that the model's card lists, among which are all {words} objects. OCE and SPEED read that
list too, UCE and hybrid do not.

- **Erased**: per cent of pictures of erased objects that still show them, with Wilson's 95 % interval.
- **Others**: pictures that show what they should, of all objects that are not erased, in per cent of the base model's.
  The base shows {base:.1f} % of all objects. The interval is a bootstrap over objects.
- **Ho**: harmonic mean of the share that is removed and the share that is kept, in per cent; likewise.
- **Worst**: the objects that lose most, pictures now of those before, of all draws; and the erased objects that are
  still seen.
- **Seconds** of one core until the edit exists; means of draws. Of a machine that did other work too.
"""
BOUND = """## How many directions the words take

A matrix that reads the prompt is linear: what it does to one direction of the text features, it does to every word that
has a part in that direction. For "a church" and so on, the features of the name's first token, less their mean over
{words} objects, have {channels} channels. Their participation ratio is {participation:.1f}; {ninety} directions hold
90 % of their variance, {most} hold 99 %. The fewer directions, the less a linear solution can erase many objects and
leave all others as they are.
"""


def page(cells: Sequence[Cell], base: Base, stem: str, model: str = "mini") -> str:
    """The page; without cells, its bound alone."""
    space, how, groups = base.space, base.protocol, grouped(cells)
    command = "python -m benchmarks.many" + ("" if model == "mini" else f" --model {model}")
    numbers = {"words": int(space["words"]), "channels": int(space["channels"])}
    bound = BOUND.format(
        **numbers, participation=space["participation"], ninety=int(space["90 %"]), most=int(space["99 %"])
    )
    if not cells:
        return f"# Many concepts at once\n\n`{command}` writes this page.\n\n{bound}"
    seen = [hit for hits in base.seen.values() for hit in hits]
    head = HEAD.format(
        command=command, model="the miniature" if model == "mini" else model, words=int(space["words"]),
        draws=counted(len({cell.draw for cell in cells}), "draw"),
        steps=how["steps"], guidance=how["guidance_scale"], each=how["each"], base=100 * sum(seen) / len(seen),
    )  # fmt: skip
    names = list(dict.fromkeys(name for _, name in groups))
    lines = ["| concepts | " + " | ".join(names) + " | must reach |", "|---:|" + "---:|" * len(names) + "---|"]
    for number in dict.fromkeys(number for number, _ in groups):
        some = [groups.get((number, name)) for name in names]
        found = [per_cent(result(one).ho) if one else "" for one in some]
        lines.append(f"| {number} | " + " | ".join(found) + f" | {GOALS.get(number, '')} |")
    table = [
        "| concepts | method | erased | others | Ho | worst | seconds | draws |",
        "|---:|---|---|---|---|---|---:|---:|",
    ]
    table += [f"| {number} | {name} | {row(some)} |" for (number, name), some in groups.items()]
    ho = "## Ho by number of concepts\n\n" + f"![Ho by number of concepts]({stem}.svg)\n\n" + "\n".join(lines)
    return "\n".join([head, ho, "\n## Every cell\n", *table, "", bound])


def plot(cells: Sequence[Cell]) -> str:
    return curves({key: result(some).ho for key, some in grouped(cells).items()})


def curves(found: Mapping[tuple[int, str], Score]) -> str:
    """Ho by number of concepts, a line for each method with its 95 % intervals; numbers on a log scale.

    found  by number and method
    """
    numbers, names = sorted({number for number, _ in found}), list(dict.fromkeys(name for _, name in found))

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.set(xscale="log", ylim=(0, 100), xlabel="concepts erased in one edit", ylabel="Ho, per cent")
        axes.set_xticks(numbers, list(map(str, numbers)))
        axes.minorticks_off()
        for k, name in enumerate(names):
            some = {number: ho for (number, method), ho in found.items() if method == name}
            places, colour = list(some), COLOURS[k % len(COLOURS)]
            value, low, high = zip(
                *((100 * ho.value, 100 * ho.low, 100 * ho.high) for ho in some.values()), strict=True
            )
            (line,) = axes.plot(places, value, "o-", color=colour, markersize=5, label=name)
            line.set_gid(f"{SAID}{name}: " + ", ".join(f"{n} {ho:.1f} %" for n, ho in zip(places, value, strict=True)))
            axes.vlines(places, low, high, colour)
        figure.legend(loc="outside right upper")

    return svg(760, 380, "Ho by number of concepts, a line for each method, with 95 % intervals.", draw, alone=True)
