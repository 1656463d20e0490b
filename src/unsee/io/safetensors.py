"""Headers of safetensors files, checked before anything is read."""

from __future__ import annotations

from pathlib import Path

from pydantic.dataclasses import dataclass

from unsee.errors import InputError

MOST_HEADER = 16 * 2**20
MOST_BYTES = 64 * 2**30
"""What is read at most, in bytes: a header of 100,000 names; the largest open models in float32."""

FLOATS = ("F64", "F32", "F16", "BF16")
"""The types that weights may have, as safetensors names them."""


@dataclass(frozen=True)
class Header:
    """What a safetensors file says of itself.

    metadata  texts by key
    tensors   type and shape by name
    """

    metadata: dict[str, str]
    tensors: dict[str, tuple[str, tuple[int, ...]]]


def read_header(path: str | Path) -> Header:
    """The header of a safetensors file, without its tensors.

    Raises InputError if there is no such file, it is of another kind, broken, or larger than MOST_HEADER or MOST_BYTES.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if path.is_dir():
        inside = sorted((file.name for file in path.glob("*.safetensors")), key=lambda name: (len(name), name))
        raise InputError(f"{path} is a folder" + (f": give a file in it, such as {path / inside[0]}" if inside else ""))
    if not path.is_file():
        raise InputError(f"there is no edit file {path}")
    if path.suffix != ".safetensors":
        pickle = path.suffix in (".pt", ".pth", ".bin", ".ckpt")
        how = "; `adopt` with `unpickle` converts one, reading weights only" if pickle else ""
        raise InputError(
            f"{path.name} is no .safetensors file; no other kind is read, since a pickle can run code{how}"
        )
    try:
        with path.open("rb") as raw:
            size = int.from_bytes(raw.read(8), "little")
        if size > MOST_HEADER:
            raise InputError(
                f"{path} is broken or no safetensors file: its header has {size:,} bytes, {MOST_HEADER:,} are read"
            )
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"{path} is larger than {MOST_BYTES:,} bytes, which is the most that is read")
        with safe_open(path, framework="np") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            tensors = {name: (str(part.get_dtype()), tuple(part.get_shape())) for name, part in slices.items()}
            return Header(file.metadata() or {}, tensors)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is broken or no safetensors file: {error}") from error
