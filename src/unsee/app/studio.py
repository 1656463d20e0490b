"""What the page does, on plain values: plan, erase, draw, export. Every number and file is made by `runs`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL.Image import Image

from unsee.app.preview import Preview
from unsee.edits.algebra import applied
from unsee.edits.edit import Edit
from unsee.errors import InputError, unknown
from unsee.evaluate.records import Evaluation
from unsee.export.formats import FORMATS
from unsee.io.settings_file import read
from unsee.models.load import open_model
from unsee.models.model import Model, kind
from unsee.progress import Progress, clock
from unsee.report import before_after
from unsee.runs import erase as erasing
from unsee.runs.api import generate
from unsee.runs.config import RunConfig, build
from unsee.runs.export import export
from unsee.runs.folder import EDIT, RECORD, claimed, folder_name
from unsee.runs.forecast import of_erase
from unsee.spelling import listed

MOST_WORDS, MOST_NUMBER = 2000, 10_000
"""Letters of a text and the largest number of pictures that the page takes."""
EXPORTS = {
    "ComfyUI, A1111, Forge: full strength": "comfy",
    "ComfyUI, A1111, Forge: LoRA": "kohya-lora",
    "diffusers: LoRA": "diffusers-lora",
    "diffusers: changed weights": "delta",
    "unsee: the edit itself": "edit",
}
"""What a download is for, and its format."""

Pair = tuple[Image, Image]


@dataclass(frozen=True)
class Form:
    """The page's form for a run of erase. Texts may list words, "castle, house"."""

    model: str
    concept: str
    method: str | None = None
    anchor: str = ""
    keep: str = ""
    synonyms: str = ""
    pictures: int | None = None
    seed: int = 0

    def config(self) -> RunConfig:
        """The same as a configuration. Raises InputError, in one line, on what cannot work."""
        for text in (self.concept, self.anchor, self.keep, self.synonyms):
            if len(text) > MOST_WORDS:
                raise InputError(f"a text has {len(text):,} characters; at most {MOST_WORDS:,} are allowed")
        if not self.concept.strip():
            raise InputError("write what to erase, such as: church")
        if self.pictures is not None and self.pictures > MOST_NUMBER:
            raise InputError(f"{self.pictures:,} pictures for each row are too many; at most {MOST_NUMBER:,} are drawn")
        words = listed(self.concept) or [self.concept]
        if self.synonyms.strip() and len(words) > 1:
            raise InputError("other names belong to one concept: erase one concept at a time, or give no other names")
        more = {"anchor": self.anchor.strip() or None, "keep": self.keep, "synonyms": self.synonyms}
        concepts = [{"erase": word, **{key: value for key, value in more.items() if value}} for word in words]
        given = {"pictures": self.pictures, "method": self.method}
        given = {key: value for key, value in given.items() if value}
        return build({"model": self.model, "concepts": concepts, "seed": self.seed, **given})


@dataclass
class Studio:
    """The runs of a folder, and the models that the page may use.

    root    folder of runs; command line and page see the same
    cache   folder of pictures, drawn once
    models  by name; the browser chooses among them and can name no other
    """

    root: Path
    cache: Path
    models: tuple[str, ...] = ("mini",)
    _open: dict[str, Model] = field(default_factory=dict)
    _planned: dict[Form, erasing.Plan] = field(default_factory=dict)

    def runs(self) -> dict[str, Path]:
        """Folders that hold an edit, by name, the newest first."""
        found = sorted(self.root.glob(f"*/{EDIT}"), key=lambda path: -path.stat().st_mtime)
        return {path.parent.name: path.parent for path in found}

    def folder(self, run: str) -> Path:
        """The folder of a run by its name. Raises InputError for a name that is not in the list."""
        runs = self.runs()
        if run not in runs:
            raise unknown("run", str(run), runs)
        return runs[run]

    def plan(self, form: Form) -> erasing.Plan:
        """A run that is ready to start. Raises InputError for a model that is not offered, and as erase does."""
        self._offered(form.model)
        if form not in self._planned:
            config = form.config()
            self._planned.clear()
            self._open.clear()  # one model in memory at a time
            self._planned[form] = plan = erasing.plan(config)
            self._open[form.model] = plan.model
        return self._planned[form]

    def place(self, plan: erasing.Plan) -> tuple[Path, bool]:
        """The folder for a plan, and whether it holds that very run, interrupted: a name that is free, or that one."""
        name = folder_name([concept.erase for concept in plan.config.concepts])
        wanted = plan.config.model_dump(mode="json")
        for k in range(1, 10_000):
            folder = self.root / (name if k == 1 else f"{name}-{k}")
            if not folder.exists():
                return folder, False
            record = _record(folder)
            if record.get("config") == wanted and "evaluation" not in record:
                return folder, True
        raise InputError(f"{self.root} holds 10,000 runs of {name}: remove some")

    def erase(self, form: Form, progress: Progress, show: Any) -> str:
        """Erase as the command line does, and show pictures before and while it fits; the run's name."""
        progress("load", 0, 1)
        plan = self.plan(form)
        folder, interrupted = self.place(plan)
        preview = Preview(plan.model, plan.config, show, progress)
        with claimed(folder, resume=interrupted):
            erasing.erase(plan, folder, self.cache, command="unsee app", every=10.0, progress=preview)
        with self.edits([folder.name]).applied(plan.model, 1.0):
            preview.now()
        return folder.name

    def described(self, plan: erasing.Plan) -> list[tuple[str, str]]:
        """What a run would do and take, as names and texts."""
        config, (trained, of), folder = plan.config, plan.trained, self.place(plan)[0]
        found = of_erase(plan, folder, self.cache)
        seconds = sum(found.seconds(work) for work in found.work)
        held = f"{found.peak / 1e9:.1f} GB so far; " if found.peak else ""
        lines = [
            ("model", f"{plan.model.name}, {kind(plan.model).__name__} on {plan.model.device}"),
            ("method", str(config.method)),
            ("changes", f"{trained:,} of {of:,} parameters ({100 * trained / of:.1f} %)"),
            ("pictures", f"{config.pictures} a row, {config.steps} steps, guidance scale {config.guidance_scale:g}"),
            ("time", f"about {clock(seconds)}, estimated from one pass and picture; {found.passes:,} denoiser passes"),
            ("memory", f"{held}fit: {found.fit}"),
            ("writes", f"{folder.name}/"),
        ]
        said = [*(("note", note) for note in plan.notes), *(("warning", one) for one in found.warnings)]
        return lines + said

    def edits(self, names: Sequence[str]) -> Switched:
        """The edits of some runs. Raises InputError if they are of more than one model, or of one not offered."""
        folders = [self.folder(name) for name in names]
        loaded = [Edit.load(folder / EDIT) for folder in folders]
        models = {self._made_on(folder, edit) for folder, edit in zip(folders, loaded, strict=True)}
        if len(models) > 1:
            raise InputError(f"these edits belong to different models: {', '.join(sorted(models))}")
        return Switched(next(iter(models), self.models[0]), loaded)

    def draw(self, prompt: str, names: Sequence[str], strength: float, seed: int, progress: Progress) -> Pair:
        """A prompt before and after some edits, each times `strength`, on one seed."""
        if not prompt.strip() or len(prompt) > MOST_WORDS:
            raise InputError(f"write a prompt of at most {MOST_WORDS:,} characters")
        switched = self.edits(names)
        model = self.opened(switched.model)
        before = generate(model, prompt, seed=seed, progress=progress)[0]
        with switched.applied(model, strength):
            return before, generate(model, prompt, seed=seed, progress=progress)[0]

    def evidence(self, run: str) -> tuple[str, str]:
        """What a run measured: a sentence, and its page as HTML, with the table and the plots."""
        folder = self.folder(run)
        record = _record(folder)
        if "evaluation" not in record:
            return "This edit was not measured here. `unsee evaluate` measures it.", ""
        found = Evaluation.from_json(json.dumps(record["evaluation"]))
        page = folder / "index.html"
        text = page.read_text(encoding="utf-8") if page.is_file() else ""
        return before_after.verdict(before_after.of_one_edit(found)), text

    def export(self, run: str, what: str, out: Path) -> tuple[Path, str]:
        """A file of a run's edit for another tool, below the folder `out`; and what to do with it."""
        if what not in EXPORTS:
            raise unknown("format", what, EXPORTS)
        folder, form = self.folder(run), EXPORTS[what]
        edit = Edit.load(folder / EDIT)
        path = out / f"{folder_name([run])}{'' if form == 'edit' else f'-{form}'}.safetensors"
        if form == "edit":
            return edit.save(path), f"unsee generate PROMPT --edit {path.name}"
        model = self.opened(self._made_on(folder, edit))
        done = export(edit, model, form, path, force=True)
        use = FORMATS[form].use.format(path=path.name, net=next(iter(edit.deltas)).split(".")[0])
        lost = (
            f"; pictures differ from the edit's by {255 * done.lost:.1f} of 255 grey levels at most"
            if done.loss
            else ""
        )
        return path, use + lost

    def take_in(self, upload: Path) -> str:
        """Keep an edit that was uploaded, under the name of what it erases; the run's name.

        Raises InputError for what is no edit in safetensors. The file's own name is not used.
        """
        edit = Edit.load(upload)
        name = folder_name(["uploaded", *(concept.erase for concept in edit.card.concepts)])
        k = 1
        while (folder := self.root / (name if k == 1 else f"{name}-{k}")).exists():
            k += 1
        folder.mkdir(parents=True)
        edit.save(folder / EDIT)
        return folder.name

    def opened(self, name: str) -> Model:
        """A model that is offered; the one that was opened last is kept."""
        self._offered(name)
        if name not in self._open:
            self._planned.clear()
            self._open.clear()
            self._open[name] = open_model(name)
        return self._open[name]

    def _offered(self, name: str) -> None:
        if name not in self.models:
            raise unknown("model", str(name), self.models)

    def _made_on(self, folder: Path, edit: Edit) -> str:
        """The model of an edit, which must be offered."""
        said = str(_config(folder).get("model") or edit.card.base)
        if said not in self.models:
            raise InputError(f"{folder.name} is an edit for the model {said!r}: start the app with --model {said}")
        return said


@dataclass(frozen=True)
class Switched:
    """Edits that are in use together, and their model."""

    model: str
    loaded: Sequence[Edit]

    def applied(self, model: Model, strength: float) -> Any:
        """A context in which each is in the model, times `strength`."""
        return nullcontext() if not self.loaded else applied(model, self.loaded, [strength] * len(self.loaded))


def _record(folder: Path) -> dict[str, Any]:
    """A run's record; empty where there is none."""
    path = folder / RECORD
    return dict(json.loads(path.read_bytes())) if path.is_file() else {}


def _config(folder: Path) -> dict[str, Any]:
    return read(folder / RECORD) if (folder / RECORD).is_file() else {}
