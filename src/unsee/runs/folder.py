"""The folder of a run: its files, its lock, and edits that are kept."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from unsee.concepts import Concept
from unsee.denoising.text_layers import find_text
from unsee.edits.edit import Edit
from unsee.errors import InputError
from unsee.evaluate.cache import model_key
from unsee.fit.resume import ResumeFile
from unsee.io.atomic import write_whole
from unsee.models.denoisers import denoiser
from unsee.models.distributed import processes
from unsee.models.model import Pipeline
from unsee.progress import Progress, no_progress
from unsee.versions import code

EDIT, STATE, RECORD, LOCK = "edit.safetensors", "state.safetensors", "run.json", ".lock"
"""What a run's folder holds: its edit, how to do it again, and, until it is done, the state of its fit and a lock."""
STATES = "state*.safetensors"
"""With two denoisers, the fit of each keeps a state of its own."""


def edit_name(path: Path) -> str:
    """What an edit's file, or a run's folder, is called; "edit.safetensors" goes by its folder's name."""
    return path.resolve().parent.name if path.stem == "edit" else path.stem


@contextmanager
def claimed(
    folder: Path, *, resume: bool = False, force: bool = False, results: Sequence[str] = (EDIT, STATES)
) -> Iterator[Callable[[], None]]:
    """A run's folder, made, locked, and taken away again if nothing was written into it.

    resume   go on with the run that it holds
    force    start over: what is yielded takes an earlier run's results away, once all is known to be in order
    results  files that are a run's, as patterns

    Of many processes, only one looks after the folder.
    Raises InputError if it cannot be written, if another run is writing into it, or if it holds a run already.
    """
    if not processes().is_main_process:
        yield lambda: None
        return
    ours, lock = not folder.exists(), FileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(f"another run is writing into {folder}: wait for it, or give another `folder`") from error
    except OSError as error:
        raise InputError(f"cannot write into {folder}: {error.strerror or error}") from error
    try:
        begun = [] if resume else [path for name in results for path in folder.glob(name)]
        if begun and not force:
            what = "run that was interrupted" if begun[0].match(STATES) else "run"
            more = ", and `resume` continues it" if STATES in results else ""
            raise InputError(f"{folder} holds a {what} already: `force` starts over, another `folder` keeps it{more}")

        def start_over() -> None:
            for path in begun:
                path.unlink(missing_ok=True)

        yield start_over
    finally:
        lock.release()
        (folder / LOCK).unlink(missing_ok=True)
        if ours:
            with suppress(OSError):  # what was finished stays
                folder.rmdir()


def folder_name(words: Sequence[str]) -> str:
    """A folder's name made of words: letters, digits and dashes only, so that no word can lead out of a folder."""
    return re.sub(r"[^\w]+", "-", "-".join(words)).strip("-")[:80] or "run"


def edit_file(folder: Path, method: Any, pipe: Pipeline, concepts: Sequence[Concept]) -> Path:
    """Where `kept_edit` keeps an edit: the name is a hash of all that the edit depends on.

    That is the model with its options (see model_key), the concepts, the settings, and the code that makes it.
    """
    _, net = denoiser(pipe)
    find_text(pipe)
    what = f"{model_key(pipe)} {method.resolved(net, concepts)} {list(concepts)} {code(type(method).__module__)}"
    words = folder_name([concept.erase for concept in concepts])
    return folder / f"{words}-{hashlib.sha256(what.encode()).hexdigest()[:12]}.safetensors"


def kept_edit(
    folder: Path, method: Any, pipe: Pipeline, concepts: Sequence[Concept], *, progress: Progress = no_progress
) -> Path:
    """The file of an edit, made unless `folder` holds it, as `edit_file` names it.

    A fit that is interrupted goes on where it stopped. Of many processes one writes, before any goes on.
    """
    path = edit_file(folder, method, pipe, concepts)
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        edit = method(pipe, concepts, progress=progress, resume=ResumeFile(path.with_suffix(".state")))
        save_edit(edit, path)
        if processes().is_main_process:
            for state in folder.glob(f"{path.stem}*.state"):
                state.unlink(missing_ok=True)
    processes().wait_for_everyone()
    return path


def save_edit(edit: Edit, path: Path) -> None:
    """Save an edit; of many processes, one writes."""
    if processes().is_main_process:
        edit.save(path)


def write(path: Path, how: Callable[[Path], object]) -> None:
    """Write a file whole or not at all; of many processes, one writes."""
    if processes().is_main_process:
        write_whole(path, how)
