"""Erase, evaluate and attack every cell of a grid, and put the results side by side: what `unsee sweep` does.

A cell's folder is named by its content, and its record is written last. A sweep that is started again reads the records
that are there, goes on with cells that were interrupted, and tries failed ones again. A cell that fails stops no other.
"""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from unsee.errors import InputError
from unsee.evaluate.attacked import Attacked
from unsee.evaluate.records import Evaluation
from unsee.io.atomic import write_whole
from unsee.progress import Progress, no_progress
from unsee.report.sweep import Failed, Result, page, plot, result, table_csv
from unsee.runs import attack as attacking
from unsee.runs import erase as erasing
from unsee.runs import evaluate as evaluating
from unsee.runs import siege
from unsee.runs.config import EvalConfig, SweepConfig, build
from unsee.runs.folder import RECORD, claimed
from unsee.runs.grid import Cell, cells, said

CELLS, CELL, JOURNAL, FAILED = "cells", "cell.json", "journal.jsonl", "failed.txt"
"""A sweep's folder has a folder for each cell, with its record once it is finished; a line for each start and end."""
FILES = ("index.html", "trade-off.svg", "table.csv", JOURNAL)
TRIES = 3
"""How often a cell whose worker died is started before it counts as failed."""

Job = Callable[[Cell], Result | Failed]


@dataclass(frozen=True)
class Workers:
    """Where cells run.

    at_once  cells at once on this machine; None: one for each GPU, one without; 1 needs no ray
    address  of a ray cluster, "auto" or HOST:PORT; its machines see the sweep's folder under the same path
    gpus     GPUs of a cell, such as 0.5; None: 1 where there are any, else 0
    """

    at_once: int | None = None
    address: str | None = None
    gpus: float | None = None


def sweep(
    config: SweepConfig,
    folder: Path,
    cache: Path,
    *,
    workers: Workers = Workers(),
    title: str = "Sweep",
    command: str = "",
    progress: Progress = no_progress,
) -> tuple[list[Result], list[Failed]]:
    """Run all cells of a grid that are not finished, and write FILES into `folder`. The finished and the failed cells.

    cache    folder of pictures; what is there is not drawn again
    command  that was typed, for the page
    Raises InputError on a grid that cannot work, or if many cells at once are asked for and ray is not installed.
    """
    grid = cells(config)
    with claimed(folder, resume=True):
        found = {one.name: kept for one in grid if (kept := finished(folder, one))}
        todo = [cell for cell in grid if cell.name not in found]
        progress("cells", len(found), len(grid))
        failed: dict[str, Failed] = {}
        job = partial(run_cell, folder=folder.resolve(), cache=cache.resolve())
        for one in _answers(todo, job, workers):
            if isinstance(one, Result):
                found[one.name] = one
            else:
                failed[one.name] = one
            progress("cells", len(found) + len(failed), len(grid))
        results = [found[cell.name] for cell in grid if cell.name in found]
        failures = [failed[cell.name] for cell in grid if cell.name in failed]
        texts = {
            "table.csv": table_csv(results),
            "trade-off.svg": plot(results),
            "index.html": page(title, results, failures, config.model_dump_json(indent=1), command),
        }
        for name, text in texts.items():
            write_whole(folder / name, partial(Path.write_text, data=text, encoding="utf-8"))
    return results, failures


def finished(folder: Path, cell: Cell) -> Result | None:
    """The result of a cell, if it is finished."""
    path = folder / CELLS / cell.name / CELL
    return TypeAdapter(Result).validate_json(path.read_bytes()) if path.is_file() else None


def run_cell(cell: Cell, folder: Path, cache: Path) -> Result | Failed:
    """One cell from start to end, in its folder; what an earlier try finished stays. An error becomes a Failed."""
    place = folder / CELLS / cell.name
    if kept := finished(folder, cell):
        return kept
    try:
        with claimed(place, resume=True):
            _note(folder, cell, "started")
            place.joinpath(FAILED).unlink(missing_ok=True)
            found = stages(cell, place, cache)
            write_whole(place / CELL, lambda path: path.write_bytes(TypeAdapter(Result).dump_json(found, indent=1)))
            _note(folder, cell, "finished")
            return found
    except Exception as error:
        reason = " ".join(str(error).split())[:500] or type(error).__name__
        _note(folder, cell, "failed", reason)
        if not isinstance(error, InputError):  # which says all
            place.mkdir(parents=True, exist_ok=True)
            place.joinpath(FAILED).write_text(traceback.format_exc(), encoding="utf-8")
            reason = f"{type(error).__name__}: {reason}; the traceback is in {CELLS}/{cell.name}/{FAILED}"
        return Failed(cell.name, said(cell), reason)


def stages(cell: Cell, place: Path, cache: Path) -> Result:
    """Erase, evaluate and attack, each unless its record is there."""
    record = _record(place / RECORD)
    if "evaluation" not in record:
        plan = erasing.plan(cell.config)
        record = erasing.erase(plan, place, cache, command="unsee sweep").record
        del plan
    summary = Evaluation.from_json(json.dumps(record["evaluation"]))
    if cell.evaluate is not None and not (place / "evaluation" / "evaluation.json").is_file():
        (place / "evaluation").mkdir(exist_ok=True)
        bench = evaluating.prepare(build({**cell.evaluate, "model": str(place)}, EvalConfig))
        evaluating.evaluate(bench, place / "evaluation", cache, command="unsee sweep")
    attacked = None
    if cell.attack is not None:
        path = place / "attack" / attacking.RECORD
        if not path.is_file():
            how = cell.attack
            options = how.model_dump(include={"budget", "seed", "steps", "guidance_scale"})
            ready = siege.prepare(
                str(place), names=how.attacks, detectors=how.detectors, n=how.pictures,
                trust_remote_code=cell.config.trust_remote_code, **options,
            )  # fmt: skip
            path.parent.mkdir(exist_ok=True)
            attacking.attack(ready, path.parent, command="unsee sweep")
        attacked = Attacked.from_json(path.read_bytes())
    ran = {**said(cell), "method": record["config"]["method"]}  # the default is known when the model is
    return result(cell.name, ran, summary, attacked, record["seconds"])


def _record(path: Path) -> dict[str, Any]:
    return json.loads(path.read_bytes()) if path.is_file() else {}


def _note(folder: Path, cell: Cell, event: str, reason: str = "") -> None:
    """A line in the journal. It is short and appended whole, so many processes may write."""
    line = {"cell": cell.name, "event": event, "at": round(time.time(), 1), "process": os.getpid()}
    with (folder / JOURNAL).open("a", encoding="utf-8") as file:
        file.write(json.dumps({**line, **({"reason": reason} if reason else {})}) + "\n")


def _answers(todo: Sequence[Cell], job: Job, workers: Workers) -> Iterable[Result | Failed]:
    if not todo:
        return ()
    at_once = workers.at_once or (1 if workers.address else _gpus_here())
    if at_once == 1 and workers.address is None:
        return map(job, todo)
    return by_ray(todo, job, at_once, workers)


def _gpus_here() -> int:
    import torch

    return max(1, torch.accelerator.device_count()) if torch.accelerator.is_available() else 1


def by_ray(todo: Sequence[Cell], job: Job, at_once: int, workers: Workers) -> Iterator[Result | Failed]:
    """Results as cells end. ray restarts a cell whose worker died, and gives each cell its GPUs and cores."""
    try:
        ray: Any = import_module("ray")
    except ImportError as error:
        raise InputError(
            "several cells at once, and clusters, need ray: pip install 'unsee[ray]'; `workers` 1 needs none"
        ) from error
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    cores = max(1, (os.cpu_count() or 1) // at_once)
    here: dict[str, Any] = {"num_cpus": cores * at_once, "include_dashboard": False} if not workers.address else {}
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        ray.init(address=workers.address or "local", **here, **quiet)
    except ConnectionError as error:
        raise InputError(
            f"no ray cluster answers at {workers.address}: {' '.join(str(error).split())[:200]}"
        ) from error
    try:
        gpus = workers.gpus if workers.gpus is not None else float(ray.cluster_resources().get("GPU", 0) > 0)
        task = ray.remote(job_of(job)).options(
            num_cpus=1 if workers.address else cores, num_gpus=gpus, max_retries=TRIES - 1
        )
        waiting = {task.remote(cell): cell for cell in todo}
        while waiting:
            ready, _ = ray.wait(list(waiting), num_returns=1)
            for answer in ready:
                cell = waiting.pop(answer)
                try:
                    yield ray.get(answer)
                except ray.exceptions.RayError as error:
                    said_ = " ".join(str(error).split())[:200]
                    yield Failed(cell.name, said(cell), f"its worker died in each of {TRIES} tries: {said_}")
    finally:
        ray.shutdown()


def job_of(job: Job) -> Job:
    """A job that works in the folder in which the sweep was started, so that relative paths mean the same."""
    here = Path.cwd()

    def there(cell: Cell) -> Result | Failed:
        os.chdir(here)
        return job(cell)

    return there
