"""The saved state from which an interrupted fit continues."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from unsee.errors import InputError
from unsee.io.atomic import write_whole

State = dict[str, Tensor]


@dataclass
class ResumeFile:
    """A file that holds a fit's state, replaced whole or not at all, at most every `every` seconds.

    path   .safetensors
    run    what was started, in words: a file of another run is refused
    every  seconds; 0 saves before every update
    window  updates at whose multiples a state may be kept: batches that depend on the weights are made there
    """

    path: Path
    run: str = ""
    every: float = 60.0
    window: int = 1
    _saved: float = field(default_factory=time.monotonic)

    def of(self, run: str, window: int = 1) -> ResumeFile:
        """The same file for one run."""
        return replace(self, run=run, window=window)

    def load(self) -> State | None:
        """The state, or None if there is no file. Raises InputError if it is broken, or of another run."""
        if not self.path.is_file():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                said = file.metadata() or {}
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise InputError(f"{self.path} is broken; delete it to start over: {error}") from error
        if said.get("run") != self.run:
            raise InputError(f"{self.path} belongs to a run with other settings; delete it, or give another `folder`")
        return state

    def offer(self, state: Callable[[], Mapping[str, Tensor]]) -> None:
        """Save the state, which is only computed then, if the last time is long enough ago."""
        if time.monotonic() - self._saved < self.every:
            return
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state().items()}
        data = save(tensors, metadata={"run": self.run})
        write_whole(self.path, lambda part: part.write_bytes(data))
        self._saved = time.monotonic()


def flat(optimizer: torch.optim.Optimizer) -> State:
    """An optimizer's state as named tensors."""
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer.{k}.{key}": value for k, held in state.items() for key, value in held.items() if value is not None
    }


def restore(optimizer: torch.optim.Optimizer, state: State) -> None:
    """Put back what `flat` took from an optimizer over the same parameters."""
    held: dict[int, dict[str, Tensor]] = {}
    for name, value in state.items():
        if name.startswith("optimizer."):
            _, k, key = name.split(".")
            held.setdefault(int(k), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": held})
