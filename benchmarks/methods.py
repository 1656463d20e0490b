"""docs/methods.md: every variant of every method on the miniature, with its command, pictures and numbers.

    python -m benchmarks.methods [-n 48] [--only NAME ...] [--work runs/methods] [--out docs/methods.md]

Each variant is a run of `unsee erase` in a folder of its own under `--work`. What is finished there is not done again,
and what was interrupted goes on; the page is written anew after each one.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL.Image import Image

import unsee
from benchmarks.methods_plot import numbers, plot
from unsee import methods
from unsee.edits.edit import Edit
from unsee.evaluate import suites
from unsee.evaluate.context import EvalContext
from unsee.evaluate.detectors import detectors_of
from unsee.evaluate.questions import spread
from unsee.evaluate.records import Evaluation
from unsee.evaluate.render import Sampling, Shot, render, sampling_of
from unsee.evaluate.suites.summary import NAME as SUMMARY
from unsee.evaluate.suites.summary import REST
from unsee.io.atomic import write_whole
from unsee.models.words import words_of
from unsee.report.before_after import MISSING, Line, lines
from unsee.report.grid import grid
from unsee.report.tables import number
from unsee.runs.config import build
from unsee.runs.folder import EDIT, RECORD, STATE
from unsee.versions import code

KNOWN = "known.png"
TRIAL = "--updates 2 --set record_steps=2 --set batch=2 --set runs=2 --set keep_runs=1 --set preserve_words=8"

STYLES = "removed in styles"
SHOWN = 4
"""Pictures of what must go, and as many of everything else."""


@dataclass(frozen=True)
class Variant:
    """A section of the page.

    words  of the command, after `unsee erase`
    about  a sentence on what is special
    cost   how long it takes, in units of the default; a guess, for the time that is said to be left
    """

    name: str
    words: str
    about: str = ""
    cost: float = 1.0


def variants(titles: Sequence[str], picture: Path) -> list[Variant]:
    """titles: of pictures that the model knows by heart, or their stand-ins; picture: a file with the first."""
    title, *others = titles
    keep = f"--keep {shlex.quote(', '.join(others))}" if others else ""
    once = "--set rerecord=1 --set held_out=0 --set runs=1"
    return [
        Variant("default", "church"),
        Variant("cross (ESD-x)", "church --select cross"),
        Variant("self", "church --select self"),
        Variant("noncross (ESD-u)", "church --select noncross", cost=4),
        Variant("all", "church --select all", cost=4),
        Variant("a pattern", r"church --select 'up_blocks.*attn2'", "Any regular expression of parameter names."),
        Variant("eta 0", "church --eta 0", "The concept goes to the unconditional prediction."),
        Variant("eta 3", "church --eta 3"),
        Variant("several concepts", "church dog bread", "One edit; its row is the concept that is left most often."),
        Variant("synonyms", "church --synonym chapel"),
        Variant("keep", "church --keep castle", "What is most like it is named, and stays."),
        Variant("from", "crown --from cowboy", "A cowboy stays; what the crown adds to him goes.", 4),
        Variant("from, a part", "cross --from church", "A church stays; its cross goes.", 4),
        Variant("anchor", "church --anchor castle", "What takes its place."),
        Variant("anchor, eta 0", "church --anchor castle --eta 0", "Concept ablation's target."),
        Variant("image", f"'{title}' --image {picture}", "x_t is the real picture, with noise."),
        Variant("budget", "church --budget 3s", "As many updates as fit; the rate falls to zero by then."),
        Variant("early stop", "church --updates 60 --set patience=2", "Until held-out targets fall no more.", 2),
        Variant("guidance 7.5", "church --set record_guidance=7.5", "Of the recorded runs."),
        Variant(
            "sampler", "church --set sampler=DPMSolverMultistepScheduler --set record_steps=12", "Of the recorded runs."
        ),
        Variant("rerecord", f"church {once}", "x_t by the edited model, one run anew for every update.", 4),
        Variant("preset style", "neon --preset style"),
        Variant("preset explicit", "watermark --preset explicit", "It appears though no prompt names it.", 4),
        Variant("preset person", "clown --preset person", "The miniature knows nobody by name."),
        Variant("preset memorised", f"'{title}' --preset memorised {keep}", "Titles that are like it are kept.", 3),
        Variant("preset paper", "church --preset paper", "The paper's own loop.", 30),
        Variant("preset paper, noncross", "church --preset paper --select noncross", "The paper's ESD-u.", 40),
        Variant("LoRA", "church --method lora"),
        Variant("LoRA, linear and convolution", "church --method lora --select noncross", cost=3),
        Variant("LoRA, enhance", "church --method lora --set action=enhance", "Nothing goes: there is more of it."),
        Variant("LoRA, swap", "church --method lora --set action=swap --anchor castle"),
        Variant("LoRA, preset leco", "church --method lora --preset leco", "LECO's own loop.", 20),
        Variant("robust", "church --method robust", "Attacks between the updates, from which these learn.", 30),
        Variant("STEREO", "church --method stereo", "Searches for tokens, then one fit against all of them.", 20),
        Variant("GEM", "church --method gem", "A hinge that stops by itself.", 3),
        Variant("UCE", "church --method uce", cost=0.6),
        Variant("UCE, anchor", "church --method uce --anchor castle", cost=0.6),
        Variant("UCE, several concepts", "church dog bread --method uce", cost=0.6),
        Variant("UCE, preset paper", "church --method uce --preset paper", cost=0.6),
    ]


def slug(name: str) -> str:
    return re.sub(r"\W+", "-", name.lower()).strip("-")


def done(folder: Path, command: str) -> bool:
    """Whether a folder holds the finished run of a command. One that was interrupted goes on; another is done over.

    So is one whose edit was made by other code than the method's here.
    """
    note, record = folder.with_suffix(".command"), folder / RECORD
    same = note.is_file() and note.read_text() == command and record.is_file()
    kept = json.loads(record.read_text()) if same else {}
    same = same and kept.get("code") == code(methods.find(kept["config"]["method"]).__module__)
    if same and "evaluation" in kept:
        return True
    if same and any((folder / name).exists() for name in (EDIT, STATE)):
        words = ["erase", "--resume", str(folder)]
    else:
        note.write_text(command)
        words = [*shlex.split(command)[1:], "--out", str(folder), "--force"]
    ran = subprocess.run([sys.executable, "-m", "unsee", *words], stdout=subprocess.DEVNULL)
    if ran.returncode:
        raise SystemExit(f"{command}: exit code {ran.returncode}")
    return False


class Sheet:
    """Pictures of what must go and of everything else, before and after."""

    def __init__(self) -> None:
        self.pipe = unsee.load("mini")
        self.detectors, self.words = detectors_of(self.pipe), words_of(self.pipe)
        self.before: dict[tuple[Shot, Sampling], Image] = {}

    def draw(self, edit: Edit, rows: Sequence[Line], config: dict[str, Any]) -> Image:
        n, seed = config["pictures"], config["seed"]
        sampling = Sampling(config["steps"], config["guidance_scale"])
        concepts = build(config).concepts
        context = EvalContext(self.pipe, self.detectors, self.words, concepts, n, seed, kept=edit.card.kept)
        shots_of = {question.key: question.shots for question in suites.find(SUMMARY).ask(context)}
        groups = [(row.name, spread(shots_of[row.key], SHOWN)) for row in picked(rows)]
        shots = [shot for _, some in groups for shot in some]
        new = [shot for shot in shots if (shot, sampling) not in self.before]
        self.before |= {(shot, sampling): picture for shot, picture in render(self.pipe, new, sampling).items()}
        with edit.applied(self.pipe):
            after = render(self.pipe, shots, sampling)
        before = {shot: self.before[shot, sampling] for shot in shots}
        return grid([(", ".join(name for name, _ in groups), shots)], {"before": before, "after": after}, cell=64)


def picked(rows: Sequence[Line]) -> list[Line]:
    """The row of what must go, the worst if there are several, and that of everything else."""
    removed = [row for row in rows if row.removed and row.shares and not row.key.startswith(STYLES)]
    first = max(removed, key=lambda row: row.shares[1] if row.shares else 0, default=rows[0])
    return [first, next(row for row in rows if row.key == REST)]


def cell(row: Line | None) -> str:
    if row is None:
        return ""
    if row.share is None or row.shares is None:
        change = row.change.score
        return f"{MISSING}; pictures change by {change.value:.0f} of 255, n {change.n}"
    before, after = (100 * share for share in row.shares)
    low, high = (number(end, "share") for end in (row.share.score.low, row.share.score.high))
    return f"{before:.1f} -> {after:.1f} ({low.removesuffix(' %')} to {high}), n {row.share.score.n}"


def line(variant: Variant, record: dict[str, Any], rows: Sequence[Line]) -> str:
    def starting(key: str) -> Line | None:
        return next((row for row in rows if row.key.startswith(key)), None)

    first, rest = picked(rows)
    share = 100 * record["parameters"]["trained"] / record["parameters"]["of"]
    cells = [f"[{variant.name}](#{re.sub(r'[^a-z0-9 -]', '', variant.name.lower()).replace(' ', '-')})"]
    cells += [record["config"]["method"]]
    cells += [f"{first.name}: {cell(first)}", cell(starting(STYLES)), cell(starting("neighbours")), cell(rest)]
    cells += [
        cell(starting("styles")),
        f"{share:.1f} %",
        "" if "--resume" in record["command"] else f"{record['seconds']['erase']:.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


HEAD = """# Every variant

**This page cannot rank variants that are near each other.** Each is one run at one seed. Where intervals overlap,
chance explains the difference.

![What is left of what must go, and of its neighbours, by variant, with 95 % intervals]({plot})

Each row is one run on the miniature, at one seed, of the command in its section; `{command}` writes this page.

- A cell is the per cent of pictures in which a detector sees what the prompt names, before -> after, with Wilson's
  95 % interval of "after". "Must go" is the worst row if several concepts are erased.
- "Method" is the method that ran. Without `--method` and `--preset paper` it is `hybrid`.
- "Changes" is the share of the denoiser's parameters. "Seconds" is the time until the edit exists, on the machine that
  wrote this page. A run that was interrupted has none.

| variant | method | must go | in every style | neighbours | everything else | styles | changes | seconds |
|---|---|---|---|---|---|---|---|---|
"""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=48, help="pictures for each row")
    parser.add_argument("--steps", type=int, help="sampler steps of the pictures; default as the model's card says")
    parser.add_argument("--trial", action="store_true", help="few updates and runs: whether this script works")
    parser.add_argument("--only", nargs="*", help="variants by name")
    parser.add_argument("--work", type=Path, default=Path("runs/methods"), help="where the runs stay")
    parser.add_argument("--out", type=Path, default=Path("docs/methods.md"))
    parser.add_argument("--draw", action="store_true", help="draw the page's plot anew from its table")
    options = parser.parse_args(argv)
    if options.draw:
        write(options.out, options.out.read_text(encoding="utf-8"))
        return
    pictures = options.out.with_suffix("")
    for folder in (options.work, pictures):
        folder.mkdir(parents=True, exist_ok=True)

    sheet = Sheet()
    titles = tuple(words_of(sheet.pipe).get("memorised", ())) or ("church",)
    if not (known := pictures / KNOWN).is_file():
        shot = Shot(titles[0], 99)
        drawn = render(sheet.pipe, [shot], sampling_of(sheet.pipe))[shot]
        write_whole(known, lambda path: drawn.save(path, format="PNG"))
    chosen = [one for one in variants(titles, known) if not options.only or one.name in options.only]
    given = shlex.join(["python", "-m", "benchmarks.methods", *(sys.argv[1:] if argv is None else argv)])
    spent = worked = 0.0
    table, sections = [], []
    for k, variant in enumerate(chosen):
        more = [f"-n {options.n}", f"--steps {options.steps}" if options.steps else ""]
        more += [TRIAL if options.trial and "uce" not in variant.words else ""]
        command = " ".join(filter(None, [f"unsee erase {variant.words}", *more]))
        folder, start = options.work / slug(variant.name), time.monotonic()
        if not done(folder, command):
            spent, worked = spent + time.monotonic() - start, worked + variant.cost
        left = sum(one.cost for one in chosen[k + 1 :]) * spent / worked / 60 if worked else 0
        print(f"{k + 1} of {len(chosen)}: {variant.name}; about {left:.0f} min left", file=sys.stderr, flush=True)

        record = json.loads((folder / RECORD).read_text())
        rows = lines(Evaluation.from_json(json.dumps(record["evaluation"])).measured, "edit")
        picture = sheet.draw(Edit.load(folder / EDIT), rows, record["config"])
        name = f"{slug(variant.name)}.webp"
        write_whole(pictures / name, lambda path, picture=picture: picture.save(path, format="WEBP", quality=80))
        table.append(line(variant, record, rows))
        image = f"![Before and after]({pictures.name}/{name})"
        parts = [f"## {variant.name}", variant.about, f"```sh\n{command}\n```", image]
        sections.append("\n\n".join(filter(None, parts)))
        head = HEAD.format(command=given, plot=f"{options.out.stem}.svg")
        write(options.out, head + "\n".join(table) + "\n\n" + "\n\n".join(sections) + "\n")


def write(out: Path, page: str) -> None:
    """A page, and its plot beside it."""
    for path, text in ((out, page), (out.with_suffix(".svg"), plot(numbers(page)))):
        write_whole(path, partial(Path.write_text, data=text, encoding="utf-8"))


if __name__ == "__main__":
    main()
