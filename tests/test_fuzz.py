"""Whatever a file holds, reading it ends in an InputError or in a result: no other error, no hang, no flood of memory.

`make test` tries 100 damaged files of each kind; UNSEE_FUZZ=1000 tries so many.
"""

import copy
import json
import os
import resource
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

import unsee
from unsee.cli.show import show
from unsee.edits.algebra import difference, merge
from unsee.edits.card import Card
from unsee.edits.edit import LowRank
from unsee.errors import InputError
from unsee.io import lora
from unsee.io.settings_file import read
from unsee.runs.config import build

fuzz = settings(
    max_examples=int(os.environ.get("UNSEE_FUZZ", "100")),
    deadline=None,  # `prompt` does not wait for the end
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


MOST_SECONDS = 5
MOST_MEMORY = 10**9


@pytest.fixture(autouse=True)
def frugal() -> Iterator[None]:
    """Within a test the process may take a gigabyte more than it has: what asks for more gets a MemoryError.

    Only Linux keeps to such a limit; elsewhere the peak of the resident memory is looked at (on macOS it is in bytes).
    """
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MOST_MEMORY, before[1]))
        yield
        resource.setrlimit(resource.RLIMIT_AS, before)
        return
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * unit < MOST_MEMORY


class Hang(Exception):
    pass


@contextmanager
def prompt(most: float = MOST_SECONDS) -> Iterator[None]:
    """Within the context `most` seconds may pass."""

    def late(*_: object) -> None:
        raise Hang(f"reading took more than {most} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, most)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps to a limit of memory")
def test_the_limits_on_time_and_memory_are_enforced() -> None:
    with pytest.raises(MemoryError):
        bytearray(2 * MOST_MEMORY)
    with pytest.raises(Hang), prompt(0.1):
        time.sleep(2)


CARD = Card("esd", {"eta": 1.0}, (unsee.Concept("church"),), "tiny", "0" * 64, 0, {"torch": "2"})
SMALL = unsee.Edit(
    {"unet.a.weight": torch.ones(4, 3), "unet.b.weight": LowRank(torch.ones(4, 2), torch.ones(2, 3))}, CARD
)


def parts(edit: unsee.Edit, path: Path) -> tuple[dict[str, Any], bytes]:
    """The header and the data of an edit's file."""
    whole = edit.save(path).read_bytes()
    size = struct.unpack("<Q", whole[:8])[0]
    return json.loads(whole[8 : 8 + size]), whole[8 + size :]


def joined(header: bytes, data: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + data


deep = st.sampled_from(["[" * 10**5, '{"a":' * 10**5, "[" * 500 + "]" * 500, '{"a":' * 100 + "1" + "}" * 100])
numbers = st.sampled_from(
    ["NaN", "Infinity", "-Infinity", "1e999", "9" * 5000, "-1", "0.5", "-0", "1" * 30, "true", "null"]
)
texts = st.sampled_from(
    ["../../up", "/etc/passwd", "\x00", "\x1b[2J", "\ud800", "a" * 10**5, "", "~root", "C:\\", "{}", "\u202e"]
)
leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts, st.text(max_size=8))
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts | st.text(max_size=8), inner, max_size=3)
)


def damaged(data: st.DataObject, whole: bytes) -> bytes:
    """Bytes with some flipped, cut off, doubled or put in."""
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, max(len(content) - 1, 0)))
        kind = data.draw(st.sampled_from(["flip", "cut", "double", "insert", "zero"]))
        if kind == "flip" and content:
            content[place] ^= 1 << data.draw(st.integers(0, 7))
        elif kind == "cut":
            del content[place:]
        elif kind == "double":
            content[place:place] = content[place : place + 64]
        elif kind == "insert":
            content[place:place] = data.draw(st.binary(max_size=16))
        else:
            content[place : place + 8] = bytes(8)
    return bytes(content)


def changed(data: st.DataObject, tree: Any) -> Any:
    """A JSON tree in which one value somewhere is another, or a key is another."""
    tree = copy.deepcopy(tree)
    spot = tree
    while True:
        keys = list(spot) if isinstance(spot, dict) else list(range(len(spot)))
        if not keys:
            return data.draw(values)
        key = data.draw(st.sampled_from(keys))
        inner = spot[key]
        if isinstance(inner, dict | list) and inner and data.draw(st.booleans()):
            spot = inner
            continue
        if isinstance(spot, dict) and data.draw(st.booleans()):
            spot[data.draw(texts | st.text(max_size=8))] = spot.pop(key)
        else:
            spot[key] = data.draw(values)
        return tree


def abused(data: st.DataObject, text: str) -> str:
    """A JSON text with what json.dumps would not write: doubled keys, deep nesting, numbers that are none."""
    kind = data.draw(st.sampled_from(["double", "deep", "number", "none"]))
    if kind == "double" and text.startswith("{") and ":" in text:
        first = text[1 : text.index(":")]
        return "{" + first + ":" + data.draw(numbers) + "," + text[1:]
    if kind in ("deep", "number"):
        piece = data.draw(deep if kind == "deep" else numbers)
        places = [k + 1 for k, letter in enumerate(text) if letter == ":"] or [0]
        place = data.draw(st.sampled_from(places))
        end = min((k for k in (text.find(",", place), text.find("}", place)) if k >= 0), default=len(text))
        return text[:place] + piece + text[end:]
    return text


def read_edit(path: Path) -> None:
    """All that reads an edit without a model."""
    edit = unsee.Edit.load(path)
    show(path)
    assert all(torch.isfinite(part).all() for delta in edit.deltas.values() for part in _tensors(delta))
    merge([edit, edit], [0.5, -1.0])
    difference(edit, SMALL)
    edit.save(path)
    assert unsee.Edit.load(path).deltas.keys() == edit.deltas.keys()


def _tensors(delta: Any) -> tuple[torch.Tensor, ...]:
    return (delta.up, delta.down) if isinstance(delta, LowRank) else (delta,)


def attempt(read: Callable[[Path], object], path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        with prompt():
            read(path)
    except InputError as error:
        message = str(error)
        assert message
        assert len(message) < 5000, "one line, not a book"


@fuzz
@given(data=st.data())
def test_damaged_bytes_of_an_edit_are_refused_or_read(data: st.DataObject, tmp_path: Path) -> None:
    whole = SMALL.save(tmp_path / "whole.safetensors").read_bytes()
    attempt(read_edit, tmp_path / "edit.safetensors", damaged(data, whole))


@fuzz
@given(data=st.data())
def test_a_damaged_header_of_an_edit_is_refused_or_read(data: st.DataObject, tmp_path: Path) -> None:
    header, content = parts(SMALL, tmp_path / "whole.safetensors")
    text = abused(data, json.dumps(changed(data, header) if data.draw(st.booleans()) else header))
    attempt(read_edit, tmp_path / "edit.safetensors", joined(text.encode("utf-8", "surrogatepass"), content))


@fuzz
@given(data=st.data())
def test_a_damaged_card_of_an_edit_is_refused_or_read(data: st.DataObject, tmp_path: Path) -> None:
    said = json.loads(data.draw(st.sampled_from([CARD, merge([SMALL, SMALL]).card])).to_json())
    text = abused(data, json.dumps(changed(data, said) if data.draw(st.booleans()) else said))
    tensors = {"unet.a.weight": torch.ones(2, 2)}
    try:
        content = save(tensors, metadata={"unsee": text})
    except UnicodeEncodeError:
        return
    attempt(read_edit, tmp_path / "edit.safetensors", content)


def read_adapter(path: Path) -> None:
    tensors, metadata = lora.read_tensors(path)
    lora.factors(path, tensors, metadata)


@fuzz
@given(data=st.data())
def test_a_damaged_adapter_is_refused_or_read(data: st.DataObject, tmp_path: Path) -> None:
    tensors = {"unet.a.lora_A.weight": torch.ones(2, 3), "unet.a.lora_B.weight": torch.ones(4, 2)}
    tensors |= {"lora_unet_b.lora_down.weight": torch.ones(2, 3), "lora_unet_b.lora_up.weight": torch.ones(4, 2)}
    tensors["lora_unet_b.alpha"] = torch.tensor(1.0)
    said: dict[str, Any] = {"unet.r": 2, "unet.lora_alpha": 4, "unet.alpha_pattern": {"a": 1}, "unet.use_rslora": False}
    text = abused(data, json.dumps(changed(data, said) if data.draw(st.booleans()) else said))
    try:
        whole = save(tensors, metadata={"lora_adapter_metadata": text})
    except UnicodeEncodeError:
        return
    attempt(read_adapter, tmp_path / "lora.safetensors", damaged(data, whole) if data.draw(st.booleans()) else whole)


RUN: dict[str, Any] = {
    "schema": 1,
    "config": {
        "concepts": [{"erase": "church", "keep": ["castle"], "from_": None}],
        "model": "tiny",
        "settings": {"updates": 3, "lr": 1e-5, "neutral": ["cat"]},
        "seed": 0,
        "pictures": 4,
        "guidance_scale": 3.0,
        "judges": {"objects": "folder"},
    },
    "rows": [],
}


def read_settings(path: Path) -> None:
    from unsee.methods.hybrid import Hybrid
    from unsee.models.names import model_folder
    from unsee.runs.configure import configure
    from unsee.runs.folder import folder_name

    built = build(read(path))
    configure(Hybrid, built.settings)
    model_folder(built.model)
    assert "/" not in folder_name([concept.erase for concept in built.concepts])
    build(json.loads(built.model_dump_json()))


@fuzz
@given(data=st.data())
def test_a_damaged_record_of_a_run_is_refused_or_read(data: st.DataObject, tmp_path: Path) -> None:
    text = abused(data, json.dumps(changed(data, RUN) if data.draw(st.booleans()) else RUN))
    content = text.encode("utf-8", "surrogatepass")
    attempt(read_settings, tmp_path / "run.json", damaged(data, content) if data.draw(st.booleans()) else content)


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi")
)
TRICKS = [
    LAUGHS,
    "a: &a [*a]",
    "a: &a {b: *a}\n<<: *a",
    "!!python/object/apply:os.system ['touch ran']",
    "a: !!python/name:os.system",
    "? [a, b]\n: c",
    "? {a: b}\n: c",
    "a: 2001-13-45",
    "a: 0o9",
    "a: 1:99:99:99",
    "a: " + "9" * 5000,
    "a: !!int " + "x",
    "a: !!float x",
    "a: !!binary '#'",
    "a: !!timestamp x",
    "[" * 10**5,
    "{a: " * 10**4,
    "- " * 10**4,
    "a:\n" + "".join(" " * k + "a:\n" for k in range(1, 500)),
    "model: tiny\nmodel: other",
    "a: b\n---\nc: d",
    "concepts: [{erase: church, erase: castle}]",
    "\t",
    "%YAML 9.9\n---\na: b",
    "\ufeffmodel: tiny",
]


@pytest.mark.parametrize("text", TRICKS, ids=range(len(TRICKS)))
def test_tricks_of_yaml_run_no_code(text: str, tmp_path: Path) -> None:
    attempt(read_settings, tmp_path / "run.yaml", text.encode())
    assert not (tmp_path / "ran").exists()


@fuzz
@given(data=st.data())
def test_damaged_settings_are_refused_or_read(data: st.DataObject, tmp_path: Path) -> None:
    text = yaml.safe_dump(changed(data, RUN["config"]) if data.draw(st.booleans()) else RUN["config"])
    if data.draw(st.booleans()):
        lines = text.splitlines()
        lines.insert(data.draw(st.integers(0, len(lines))), data.draw(st.sampled_from(TRICKS) | st.text(max_size=20)))
        text = "\n".join(lines)
    content = text.encode("utf-8", "surrogatepass")
    attempt(read_settings, tmp_path / "run.yaml", damaged(data, content) if data.draw(st.booleans()) else content)


TABLES = [
    "prompt,seed,label,judge\na church,3,church,\na dog,4,dog,objects\n",
    ',prompt,categories,sd_seed,sd_guidance_scale,sd_image_width,sd_image_height\n0,"a, b","x, y",219,7.5,512,512\n',
    "case_number,prompt,evaluation_seed,evaluation_guidance\n0,a church,1,7.5\n1,a dog,2,3\n",
]
CELLS = [
    "", " ", '"', '""', "'", ",", "\n", "\r", "\r\n", "\x00", "\ufeff", ";", "\t", "-1", "1e999", "nan", "inf", "1.5",
    "0x10", "9" * 30, "\u0664", "prompt", "seed", "label", "width", "height", "\u202e", "=cmd()", "a" * 200_000, "7,7",
]  # fmt: skip


def read_table(path: Path) -> None:
    """All lines of a file, each of which must be drawable; what was read means what the csv module reads."""
    import csv

    from unsee.evaluate.suites import table

    lines = table.read(path)
    assert lines
    for line in lines:
        assert line.shot.prompt.strip()
        assert 0 <= line.shot.seed < 2**63
        torch.Generator().manual_seed(line.shot.seed)
        assert line.shot.guidance is None or 0 <= line.shot.guidance <= 100
        assert line.shot.size is None or all(8 <= side <= 4096 for side in line.shot.size)
    assert len({bool(line.label) for line in lines}) == 1
    with path.open(encoding="utf-8-sig", newline="") as file:
        head, *rows = [row for row in csv.reader(file) if row]
    place = [name.strip() for name in head].index("prompt")
    assert [line.shot.prompt for line in lines] == [row[place].strip() for row in rows]
    table.from_csv(path)
    table.labels(path, "objects")


@fuzz
@given(data=st.data())
def test_damaged_prompts_are_refused_or_read(data: st.DataObject, tmp_path: Path) -> None:
    text = data.draw(st.sampled_from(TABLES))
    for _ in range(data.draw(st.integers(0, 3))):
        place = data.draw(st.integers(0, len(text)))
        end = min(len(text), place + data.draw(st.integers(0, 4)))
        text = text[:place] + data.draw(st.sampled_from(CELLS) | st.text(max_size=4)) + text[end:]
    content = text.encode("utf-8", "surrogatepass")
    attempt(read_table, tmp_path / "mine.csv", damaged(data, content) if data.draw(st.booleans()) else content)


@fuzz
@given(data=st.data())
def test_damaged_lists_of_words_are_refused_or_read(data: st.DataObject, tmp_path: Path) -> None:
    from unsee.evaluate.words import choices
    from unsee.models.words import read_words

    words = {
        "objects": {"church": {"group": "place", "synonyms": ["chapel"], "languages": {"de": "kirche"}}},
        "styles": ["ink"],
        "memorised": {"the great wave": ["wave"]},
        "styled": "{} in {} style",
        "watermark": {"names": ["watermark"], "domains": ["animal"]},
    }

    def read(path: Path) -> None:
        found = read_words(path)
        for kind in ("objects", "styles", "watermark"):
            assert all(isinstance(word, str) and word for word in choices(kind, found, (unsee.Concept("church"),)))
        if "styled" in found:
            found["styled"].format("a", "b")

    text = abused(data, json.dumps(changed(data, words) if data.draw(st.booleans()) else words))
    content = text.encode("utf-8", "surrogatepass")
    attempt(read, tmp_path / "words.json", damaged(data, content) if data.draw(st.booleans()) else content)
