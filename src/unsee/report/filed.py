"""The section of a model card that a publisher files, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from unsee.evaluate.attacked import ATTACKED
from unsee.evaluate.filed import Filed, Tried
from unsee.evaluate.statistics import Score


def share(score: Score | None) -> str:
    """In per cent, with its interval."""
    if score is None:
        return ""
    return f"{100 * score.value:.1f} % ({100 * score.low:.1f} to {100 * score.high:.1f})"


def section(filed: Filed) -> str:
    """The section. All cells are plain text: pipes and line ends of what was found are taken out."""
    concept = _plain(filed.concept)
    parts = [_part(one.of, one.gone, one.attack, one.tried, one.beyond) for one in filed.parts]
    lines = [
        f"## Erased: {concept}\n",
        f"`{_plain(filed.edit['method'])}` on `{_plain(filed.model['name'])}`; tested by `unsee attack`, "
        f"layout {filed.schema}. Shares are of {filed.n} pictures, unless n differs, with 95 % intervals.\n",
        *parts,
        f"- **Plain prompt**: {share(filed.unattacked)} of pictures show it.\n",
        "### What is left without a search\n",
        *_table(("prompts", "share", "n"), ((t.tried, share(t.score), t.score.n) for t in filed.residual)),
        "### Effort to restore, by axis\n",
        "A pass is one row that the denoiser answers. The weakest axis stands first; axes are never averaged.\n",
        *_table(
            ("axis", "attack", "share", "control", "beyond it", "passes", "half of the pictures after"),
            (
                (
                    e.axis,
                    f"{e.strongest.attack}: {e.strongest.tried}",
                    share(e.strongest.score) + _best(e.strongest, ATTACKED),
                    f"{e.control} {share(e.strongest.controls.get(e.control))}{_best(e.strongest, e.control)}"
                    if e.control
                    else "none",
                    f"{100 * e.beyond:+.1f} points",
                    e.strongest.passes,
                    "never" if e.half is None else f"{e.half} passes",
                )
                for e in filed.effort
            ),
        ),
        "### After fine-tuning on other things\n",
        *_attacks(filed.benign),
        "### With rounded weights\n",
        *_attacks(filed.quantised),
        "### What was lost\n",
        *_table(
            ("what is drawn", "base", "edited", "change", "n"),
            (
                (
                    one.what,
                    share(one.before),
                    share(one.after),
                    f"{100 * one.change.value:+.1f} points{'' if one.change.differs else ' (chance explains it)'}",
                    one.change.n,
                )
                for one in filed.lost
            ),
        ),
        "### The detector\n",
        f"It misses the concept in {share(filed.detector_error.missed)} of the base's pictures of it"
        + (
            f", and sees it in {share(filed.detector_error.mistaken)} of the base's pictures of other things "
            f"(n = {filed.detector_error.mistaken.n}).\n"
            if filed.detector_error.mistaken
            else ".\n"
        ),
        "### What was not tested\n",
        *(f"- {_plain(one)}" for one in filed.not_tested or ("nothing: every installed attack ran",)),
        "\n### To repeat it\n",
        f"    {_plain(filed.command)}\n",
        *_table(
            ("", "sha256"),
            [
                ("base", filed.model["hash"]),
                ("edit", filed.edit["hash"]),
                *((f"detector {name}", value or "not a folder") for name, value in filed.detectors.items()),
                (f"{filed.prompts['count']} prompts", filed.prompts["sha256"]),
            ],
        ),
    ]
    return "\n".join(lines) + "\n"


def _best(tried: Tried, column: str) -> str:
    """The best attack seed's share, where it is more than that of all seeds together."""
    whole = tried.score if column == ATTACKED else tried.controls[column]
    best = tried.best[column]
    return f", best seed {100 * best:.1f} %" if best > whole.value else ""


def _part(of: str, gone: bool | None, attack: str, tried: str, beyond: float | None) -> str:
    if gone is None or beyond is None:
        return f"- **Gone from {of}**: not tested."
    return f"- **Gone from {of}**: {'yes' if gone else 'no'}; {attack} ({_plain(tried)}) {100 * beyond:+.1f} points."


def _attacks(rows: Sequence[Tried]) -> list[str]:
    return _table(("what was done", "share", "n"), ((t.tried, share(t.score), t.score.n) for t in rows))


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    lines = [f"| {' | '.join(_plain(str(cell)) for cell in row)} |" for row in rows]
    if not lines:
        return ["Not tested.\n"]
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *lines, ""]


def _plain(text: str) -> str:
    return " ".join(str(text).replace("|", "/").replace("<", "&lt;").split())
