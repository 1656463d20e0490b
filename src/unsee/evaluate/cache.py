"""Pictures on disk, each under a hash of all that it depends on: drawn once, kept through interruptions."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any, overload

from PIL import Image
from torch import nn

from unsee.errors import InputError
from unsee.evaluate.render import Sampling, Shot, batches, render
from unsee.models.distributed import processes
from unsee.models.fingerprint import fingerprint
from unsee.models.model import Pipeline, call_options, kind
from unsee.progress import Progress, no_progress
from unsee.versions import versions


def model_key(pipe: Pipeline) -> str:
    """A hash of all that a pipeline draws with: weights, number formats, settings, tokenizers, sampler, options."""
    found: dict[str, Any] = {}
    for key, part in pipe.components.items():
        if isinstance(part, nn.Module):
            found[key] = (fingerprint(part), str(next(part.parameters()).dtype), _settings(part.config))
        elif hasattr(part, "get_vocab"):
            found[key] = (part.get_vocab(), part.model_max_length)
    sampler = (type(pipe.scheduler).__name__, _settings(pipe.scheduler.config))
    return _hash([kind(pipe).__name__, found, sampler, call_options(pipe)])


def _settings(config: Any) -> dict[str, Any]:
    """The configuration of a component, without what only says where it came from."""
    said = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    return {key: value for key, value in said.items() if not key.startswith("_") and key != "transformers_version"}


class Gallery(Mapping[Shot, Image.Image]):
    """Pictures by shot, read from disk when looked at; a few are kept in memory."""

    def __init__(self, files: Mapping[Shot, Path]):
        self._files = files
        self._open = lru_cache(maxsize=256)(_read)

    def __getitem__(self, shot: Shot) -> Image.Image:
        return self._open(self._files[shot])

    def __iter__(self) -> Iterator[Shot]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


class Pictures(Sequence[Image.Image]):
    """The pictures of some shots in their order, read when looked at: thousands need not fit into memory."""

    def __init__(self, gallery: Mapping[Shot, Image.Image], shots: Sequence[Shot]):
        self._gallery, self._shots = gallery, shots

    @overload
    def __getitem__(self, k: int) -> Image.Image: ...
    @overload
    def __getitem__(self, k: slice) -> list[Image.Image]: ...
    def __getitem__(self, k: int | slice) -> Image.Image | list[Image.Image]:
        return (
            [self._gallery[shot] for shot in self._shots[k]] if isinstance(k, slice) else self._gallery[self._shots[k]]
        )

    def __len__(self) -> int:
        return len(self._shots)


class NotWritable(InputError):
    """A folder of pictures cannot be written, or the disk is full."""


class Memory:
    """Keeps nothing: every picture is drawn anew, and held in memory."""

    def key(self, pipe: Any) -> str:
        """Nothing is looked up, so no weights are hashed."""
        return ""

    def draw(
        self,
        pipe: Any,
        shots: Iterable[Shot],
        sampling: Sampling,
        *,
        model: str,
        change: str = "",
        applied: Callable[[], AbstractContextManager[None]],
        batch: int = 32,
        progress: Progress = no_progress,
    ) -> Mapping[Shot, Image.Image]:
        """As `Cache.draw`."""
        with applied():
            return render(pipe, shots, sampling, batch=batch, progress=progress)


class Cache:
    """A folder of pictures. Raises NotWritable, here or later, if it cannot be written or the disk is full."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._guarded(lambda: folder.mkdir(parents=True, exist_ok=True))
        if not os.access(folder, os.W_OK):
            raise NotWritable(f"cannot write pictures into {folder}: permission denied; give another folder as `cache`")

    def key(self, pipe: Any) -> str:
        return model_key(pipe)

    def draw(
        self,
        pipe: Pipeline,
        shots: Iterable[Shot],
        sampling: Sampling,
        *,
        model: str,
        change: str = "",
        applied: Callable[[], AbstractContextManager[None]],
        batch: int = 32,
        progress: Progress = no_progress,
    ) -> Gallery:
        """Pictures of all shots; those that are not here yet are drawn, and kept batch by batch.

        model    `model_key` of the pipeline
        change   what names the edit or guard that `applied` puts on, "" for none
        Under `accelerate launch` each process draws its share.
        """
        todo = list(dict.fromkeys(shots))
        files = {shot: self.path(model, change, shot, sampling) for shot in todo}
        missing = [shot for shot in todo if not _readable(files[shot])]
        done = len(todo) - len(missing)
        progress("render", done, len(todo))
        processes().wait_for_everyone()  # or a slow one would miss fewer: all must draw from one list
        if missing:
            with applied():
                for drawn in batches(pipe, missing, sampling, batch):
                    for shot, picture in drawn:
                        self._keep(files[shot], picture)
                    done = min(done + len(drawn) * processes().num_processes, len(todo))  # others are as far
                    progress("render", done, len(todo))
        processes().wait_for_everyone()
        return Gallery(files)

    def path(self, model: str, change: str, shot: Shot, sampling: Sampling) -> Path:
        libraries = {name: versions()[name] for name in ("torch", "diffusers", "transformers")}
        name = _hash([model, change, asdict(shot), asdict(sampling), libraries])
        return self.folder / name[:2] / f"{name}.png"

    def _keep(self, path: Path, picture: Image.Image) -> None:
        """Write a picture whole or not at all; two processes may write the same one."""
        part = path.with_name(f"{path.name}.{os.getpid()}.part")

        def write() -> None:
            path.parent.mkdir(exist_ok=True)
            try:
                picture.save(part, format="PNG", compress_level=1)
                os.replace(part, path)
            finally:
                part.unlink(missing_ok=True)

        self._guarded(write)

    def _guarded(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            raise NotWritable(
                f"cannot write pictures into {self.folder}: {error.strerror or error}; give another folder as `cache`"
            ) from error


def _read(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert("RGB")


def _readable(path: Path) -> bool:
    """Whether a picture is there and whole; one that is not is drawn again."""
    try:
        _read(path)
    except OSError:
        return False
    return True


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
