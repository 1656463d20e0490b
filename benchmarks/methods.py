"""docs/methods.md: every variant of every method on the miniature, with its command, pictures and numbers.

    python -m benchmarks.methods [-n 48] [--only NAME ...] [--work runs/methods] [--out docs/methods.md]
    python -m benchmarks.methods --draw     the page and its plot anew, from its table

Each variant is a run of `unsee erase` in a folder of its own under `--work`; one that was interrupted goes on. Its rows
go into the CSV beside the page, from which the page and its plot are written anew after each one. A variant that is in
the CSV is not run again unless its command changed: delete the lines of those that a change of the code makes old.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from PIL.Image import Image

import unsee
from benchmarks.evidence.record import EDIT as OF_EDIT
from benchmarks.evidence.record import SECONDS, Cell, of, read, score, today, written
from benchmarks.methods_page import CHANGES, Variant, numbers, page, picked, plot, slug
from benchmarks.saying import say
from unsee.edits.edit import Edit
from unsee.evaluate import suites
from unsee.evaluate.context import EvalContext
from unsee.evaluate.detectors import detectors_of
from unsee.evaluate.questions import spread
from unsee.evaluate.records import Evaluation, Measured
from unsee.evaluate.render import Sampling, Shot, render, sampling_of
from unsee.evaluate.suites.summary import NAME as SUMMARY
from unsee.io.atomic import write_whole
from unsee.models.words import words_of
from unsee.report.before_after import Line, lines
from unsee.report.grid import grid
from unsee.runs.config import build
from unsee.runs.folder import EDIT, RECORD, STATE

KNOWN = "known.png"
TASK = "every variant"

SHOWN = 4
"""Pictures of what must go, and as many of everything else."""


def variants(titles: Sequence[str], picture: Path) -> list[Variant]:
    """titles: of pictures that the model knows by heart, or their stand-ins; picture: a file with the first."""
    title, *others = titles
    keep = f"--keep {shlex.quote(', '.join(others))}" if others else ""
    once = "--set rerecord=1 --set held_out=0 --set runs=1"
    ten = "church dog bread car key tree pizza bird moon clown"
    return [
        Variant("default", "church"),
        Variant("three concepts", "church dog bread", "Its row is the concept that is left most often."),
        Variant("ten concepts", ten),
        Variant("synonyms", "church --synonym chapel"),
        Variant("keep", "church --keep castle", "What is most like it is named, and stays."),
        Variant("anchor", "church --anchor castle", "What takes its place."),
        Variant("auto", "church --auto", "The scale of the edit, from its trade-off curve."),
        Variant("RECE", "church --method balance --set rece=2", "Two rounds of RECE's search for what brings it back."),
        Variant("a style", "neon", "The model's card lists it as a style, so balance takes its preset for styles."),
        Variant("a memorised title", f"'{title}'", "The seven others are not named."),
        Variant("hybrid", "church --method hybrid"),
        Variant("cross (ESD-x's layers)", "church --select cross"),
        Variant("self", "church --select self"),
        Variant("noncross (ESD-u's layers)", "church --select noncross", cost=4),
        Variant("all", "church --select all", cost=4),
        Variant("a pattern", r"church --select 'up_blocks.*attn2'", "Any regular expression of parameter names."),
        Variant("eta 0", "church --method hybrid --eta 0", "The concept goes to the unconditional prediction."),
        Variant("eta 3", "church --method hybrid --eta 3"),
        Variant("hybrid, three concepts", "church dog bread --method hybrid"),
        Variant("hybrid, anchor", "church --method hybrid --anchor castle"),
        Variant("from", "crown --from cowboy", "A cowboy stays; what the crown adds to him goes.", 4),
        Variant("from, a part", "cross --from church", "A church stays; its cross goes.", 4),
        Variant("image", f"'{title}' --image {picture}", "x_t is the real picture, with noise."),
        Variant("budget", "church --budget 3s", "As many updates as fit; the rate falls to zero by then."),
        Variant("early stop", "church --updates 60 --set patience=2", "Until held-out targets fall no more.", 2),
        Variant("guidance 7.5", "church --set record_guidance=7.5", "Of the recorded runs."),
        Variant(
            "sampler", "church --set sampler=DPMSolverMultistepScheduler --set record_steps=12", "Of the recorded runs."
        ),
        Variant("rerecord", f"church {once}", "x_t by the edited model, one run anew for every update.", 4),
        Variant("preset style", "neon --preset style", "Hybrid's. Of balance, it is the default above."),
        Variant("preset explicit", "watermark --preset explicit", "It appears though no prompt names it.", 4),
        Variant("preset person", "clown --preset person", "The miniature knows nobody by name."),
        Variant("preset memorised", f"'{title}' --preset memorised {keep}", "Titles that are like it are kept.", 3),
        Variant("ESD", "church --method esd", "The paper's objective on recorded runs, from the model's own weights."),
        Variant("ESD-u", "church --method esd --select noncross", cost=2),
        Variant("ESD, preset paper", "church --method esd --preset paper", "The paper's own loop, ESD-x.", 30),
        Variant("ESD-u, preset paper", "church --method esd --preset paper --select noncross", cost=40),
        Variant("LoRA", "church --method lora"),
        Variant("LoRA, linear and convolution", "church --method lora --select noncross", cost=3),
        Variant("LoRA, enhance", "church --method lora --set action=enhance", "Nothing goes: there is more of it."),
        Variant("LoRA, swap", "church --method lora --set action=swap --anchor castle"),
        Variant("LoRA, preset leco", "church --method lora --preset leco", "LECO's own loop.", 20),
        Variant("robust", "church --method robust", "Attacks between the updates, from which these learn.", 8),
        Variant("STEREO", "church --method stereo", "Searches for tokens, then one fit against all of them.", 8),
        Variant("GEM", "church --method gem", "A hinge that stops by itself.", 2),
        Variant("UCE", "church --method uce", cost=0.6),
        Variant("UCE, anchor", "church --method uce --anchor castle", cost=0.6),
        Variant("UCE, three concepts", "church dog bread --method uce", cost=0.6),
        Variant("UCE, preset paper", "church --method uce --preset paper", cost=0.6),
        Variant("OCE", "church --method oce", cost=0.6),
        Variant("OCE, preset paper", "church --method oce --preset paper", cost=0.6),
        Variant("SPEED", "church --method speed", cost=0.6),
        Variant("SPEED, preset paper", "church --method speed --preset paper", cost=0.6),
    ]


def run(folder: Path, command: str) -> dict[str, Any]:
    """The record of a command's run in a folder. One that was interrupted goes on; that of another is done over."""
    note, record = folder.with_suffix(".command"), folder / RECORD
    same = note.is_file() and note.read_text() == command and record.is_file()
    if same and any((folder / name).exists() for name in (EDIT, STATE)):
        words = ["erase", "--resume", str(folder)]
    else:
        note.write_text(command)
        words = [*shlex.split(command)[1:], "--out", str(folder), "--force"]
    if "evaluation" not in (found := json.loads(record.read_text()) if same else {}):
        ran = subprocess.run([sys.executable, "-m", "unsee", *words], stdout=subprocess.DEVNULL)
        if ran.returncode:
            raise SystemExit(f"{command}: exit code {ran.returncode}")
        found = json.loads(record.read_text())
    return dict(found)


def measured(variant: Variant, command: str, record: dict[str, Any]) -> Cell:
    """What a run found, as a cell of the table."""

    def about(key: str, row: str, unit: str, value: float, note: str = "") -> Measured:
        return Measured(OF_EDIT, key, "other", row, "edit", unit, score(value), None, None, note=note)

    trained, every = (record["parameters"][key] for key in ("trained", "of"))
    rows = [about(CHANGES, "of the denoiser's parameters", "share", trained / every, record["config"]["method"])]
    if "--resume" not in record["command"]:
        rows.append(about(SECONDS, "until the edit exists", "seconds", record["seconds"]["erase"]))
    rows += of("edit", [one for one in rows_of(record) if one.suite == SUMMARY])
    return Cell(TASK, variant.name, hashed(command), today(), tuple(rows))


def rows_of(record: dict[str, Any]) -> tuple[Measured, ...]:
    return Evaluation.from_json(json.dumps(record["evaluation"])).measured


def hashed(command: str) -> str:
    return hashlib.sha256(command.encode()).hexdigest()[:16]


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


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=48, help="pictures for each row")
    parser.add_argument("--steps", type=int, help="sampler steps of the pictures; default as the model's card says")
    parser.add_argument("--only", nargs="*", help="variants by name")
    parser.add_argument("--work", type=Path, default=Path("runs/methods"), help="where the runs stay")
    parser.add_argument("--out", type=Path, default=Path("docs/methods.md"))
    parser.add_argument("--draw", action="store_true", help="the page and its plot anew from its table")
    options = parser.parse_args(argv)
    pictures, table = options.out.with_suffix(""), options.out.with_suffix(".csv")
    for folder in (options.work, pictures):
        folder.mkdir(parents=True, exist_ok=True)

    sheet = Sheet()
    titles = tuple(words_of(sheet.pipe).get("memorised", ())) or ("church",)
    if not (known := pictures / KNOWN).is_file():
        shot = Shot(titles[0], 99)
        drawn = render(sheet.pipe, [shot], sampling_of(sheet.pipe))[shot]
        write_whole(known, lambda path: drawn.save(path, format="PNG"))
    given = variants(titles, known)
    more = f"-n {options.n}" + (f" --steps {options.steps}" if options.steps else "")
    commands = {variant.name: f"unsee erase {variant.words} {more}" for variant in given}
    found = {cell.by: cell for cell in read(table.read_text(encoding="utf-8"))} if table.is_file() else {}
    found = {name: found[name] for name in commands if name in found}
    chosen = [one for one in given if not options.only or one.name in options.only]
    missing = [one for one in chosen if one.name not in found or found[one.name].key != hashed(commands[one.name])]
    spent = worked = 0.0
    for k, variant in enumerate([] if options.draw else missing):
        folder, start = options.work / slug(variant.name), time.monotonic()
        record = run(folder, commands[variant.name])
        spent, worked = spent + time.monotonic() - start, worked + variant.cost
        left = sum(one.cost for one in missing[k + 1 :]) * spent / worked / 60
        say(f"{k + 1} of {len(missing)}: {variant.name}; about {left:.0f} min left")
        picture = sheet.draw(Edit.load(folder / EDIT), lines(rows_of(record), "edit"), record["config"])
        place = pictures / f"{slug(variant.name)}.webp"
        write_whole(place, lambda path, picture=picture: picture.save(path, format="WEBP", quality=80))
        found[variant.name] = measured(variant, commands[variant.name], record)
        write(options.out, [found[name] for name in commands if name in found], given, commands)
    if not missing or options.draw:
        write(options.out, list(found.values()), given, commands)


def write(out: Path, cells: Sequence[Cell], given: Sequence[Variant], commands: Mapping[str, str]) -> None:
    """The table, and from it the page and its plot."""
    files = {".csv": written(cells), ".md": page(cells, given, commands, out), ".svg": plot(numbers(cells))}
    for suffix, text in files.items():
        write_whole(out.with_suffix(suffix), partial(Path.write_text, data=text, encoding="utf-8"))


if __name__ == "__main__":
    main()
