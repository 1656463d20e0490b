"""An edit comes and goes without a trace, and survives its file."""

import contextlib
import dataclasses
import pickle
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import QUICK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from safetensors.torch import save_file

import unsee
from unsee import versions
from unsee.edits.card import read_card
from unsee.edits.edit import LowRank
from unsee.errors import InputError
from unsee.fit.resume import ResumeFile
from unsee.methods.uce import UCE
from unsee.models.fingerprint import fingerprint
from unsee.models.model import Model
from unsee.models.weights import select
from unsee.runs.folder import claimed, kept_edit


def state(pipe: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in pipe.unet.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_the_base_comes_back_bit_for_bit(pipe: Any, edit: unsee.Edit) -> None:
    base = state(pipe)
    with edit.applied(pipe):
        assert not same(base, state(pipe))
    assert same(base, state(pipe))
    with pytest.raises(RuntimeError, match="stop"), edit.applied(pipe):
        raise RuntimeError("stop")
    assert same(base, state(pipe))


def test_scale_zero_is_the_base_and_one_the_edit(pipe: Any, edit: unsee.Edit) -> None:
    base = state(pipe)
    with edit.applied(pipe, 0.0):
        assert same(base, state(pipe))
    with edit.applied(pipe, 0.5):
        half = state(pipe)
    name = next(iter(edit.deltas)).removeprefix("unet.")
    torch.testing.assert_close(half[name], base[name] + 0.5 * edit.deltas[f"unet.{name}"])


def test_contexts_close_in_any_order(pipe: Any, edit: unsee.Edit) -> None:
    """Each edit on top of the one before; every order of closing leads to the base's bits, and the top ones stay."""
    base = state(pipe)
    for order in permutations(range(3)):
        opened, states, current = [], [base], edit
        for scale in (1.0, 0.5, -0.25):
            context = dataclasses.replace(
                current, card=dataclasses.replace(edit.card, base_hash=fingerprint(pipe.unet))
            )
            opened.append(context.applied(pipe, scale))
            opened[-1].__enter__()
            states.append(state(pipe))
        left = [0, 1, 2]
        for k in order:
            opened[k].__exit__(None, None, None)
            left.remove(k)
            assert same(states[left[-1] + 1 if left else 0], state(pipe))


def test_the_refusal_of_a_second_edit_names_how_to_apply_both(pipe: Any, edit: unsee.Edit) -> None:
    with (
        edit.applied(pipe),
        pytest.raises(InputError, match="another edit is applied already.* together, use `unsee\\.applied"),
    ):
        edit.check(pipe)
    edit.check(pipe)


def test_an_adapter_is_no_part_of_the_model(pipe: Any, edit: unsee.Edit) -> None:
    """A LoRA that is loaded and not fused: edits are of the weights below it, and fit the plain model."""
    before = fingerprint(pipe.unet)
    names = set(select(pipe.unet, "cross-kv"))
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_k", "to_v"], init_lora_weights=False))
    pipe.unet.requires_grad_(False)
    try:
        assert fingerprint(pipe.unet) == before
        with pytest.warns(UserWarning, match="this UNet2DConditionModel has an adapter"):
            assert set(select(pipe.unet, "cross-kv")) == names
        found = [
            unsee.Hybrid(**QUICK)(pipe, unsee.Concept("church")),
            UCE(context_words=4, preserve_words=8)(pipe, unsee.Concept("church")),
        ]
        with edit.applied(pipe):
            assert fingerprint(pipe.unet) != before
        assert fingerprint(pipe.unet) == before
    finally:
        pipe.unet.delete_adapters("default")
        pipe.unet.unload_lora()
    for one in found:
        assert {name.removeprefix("unet.") for name in one.deltas} == names
        with one.applied(pipe):
            assert fingerprint(pipe.unet) != before


def test_a_file_gives_back_the_same_bits(edit: unsee.Edit, tmp_path: Path) -> None:
    path = edit.save(tmp_path / "edit.safetensors")
    again = unsee.Edit.load(path)
    assert again.card == edit.card
    assert again.deltas.keys() == edit.deltas.keys()
    assert all(torch.equal(again.deltas[name], delta) for name, delta in edit.deltas.items())
    assert read_card(path) == edit.card
    assert [file.name for file in tmp_path.iterdir()] == ["edit.safetensors"]


def test_an_edit_for_other_weights_is_refused_with_both_hashes(pipe: Any, edit: unsee.Edit) -> None:
    other = dataclasses.replace(edit, card=dataclasses.replace(edit.card, base_hash="0" * 64))
    here = fingerprint(pipe.unet)[:12]
    with pytest.raises(InputError, match=f"000000000000; the weights here are {here}"), other.applied(pipe):
        pass


def test_an_edit_of_other_shapes_is_refused_with_both_shapes(pipe: Any, edit: unsee.Edit) -> None:
    name = next(iter(edit.deltas))
    other = unsee.Edit({name: torch.zeros(3, 3)}, edit.card)
    with pytest.raises(InputError, match=r"has shape \(3, 3\) there, "), other.applied(pipe):
        pass
    with (
        pytest.raises(InputError, match="has no weight 'unet.nothing'"),
        unsee.Edit({"unet.nothing": torch.zeros(1)}, edit.card).applied(pipe),
    ):
        pass


def test_the_fingerprint_depends_on_values_and_not_on_precision(pipe: Any) -> None:
    from copy import deepcopy

    half = deepcopy(pipe.unet).to(torch.bfloat16)
    assert fingerprint(half) == fingerprint(pipe.unet)
    next(half.parameters()).data += 1
    assert fingerprint(half) != fingerprint(pipe.unet)


def test_files_that_are_no_edit_are_refused(edit: unsee.Edit, tmp_path: Path) -> None:
    whole = edit.save(tmp_path / "edit.safetensors").read_bytes()
    poison = dataclasses.replace(edit, deltas={name: delta * torch.nan for name, delta in edit.deltas.items()})
    files = {
        "truncated.safetensors": whole[:-100],
        "random.safetensors": bytes(range(256)) * 8,
        "empty.safetensors": b"",
        "pickle.safetensors": pickle.dumps({"a": 1}),
        "pickle.pt": pickle.dumps({"a": 1}),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError):
            unsee.Edit.load(tmp_path / name)
    save_file({"a": torch.zeros(1)}, tmp_path / "bare.safetensors")
    with pytest.raises(InputError, match="no card"):
        unsee.Edit.load(tmp_path / "bare.safetensors")
    with pytest.raises(InputError, match="not finite"):
        unsee.Edit.load(poison.save(tmp_path / "nan.safetensors"))
    with pytest.raises(InputError, match="there is no edit file"):
        unsee.Edit.load(tmp_path / "missing.safetensors")


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1), value=st.integers(0, 255), cut=st.floats(0, 1))
def test_a_damaged_file_is_refused_or_read(
    edit: unsee.Edit, tmp_path: Path, place: float, value: int, cut: float
) -> None:
    """No byte in the header and no cut ends in anything but an InputError or an edit."""
    whole = bytearray(edit.save(tmp_path / "edit.safetensors").read_bytes())
    header = int.from_bytes(whole[:8], "little") + 8
    whole[int(place * (header - 1))] = value
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(whole if cut > 0.5 else whole[: int(2 * cut * len(whole))])
    with contextlib.suppress(InputError):
        unsee.Edit.load(path)


def test_a_low_rank_difference_is_kept_as_it_is(pipe: Any, edit: unsee.Edit, tmp_path: Path) -> None:
    name = next(iter(edit.deltas))
    rows, columns = edit.deltas[name].shape  # type: ignore[union-attr]
    thin = LowRank(torch.randn(rows, 2), torch.randn(2, columns))
    path = unsee.Edit({name: thin}, edit.card).save(tmp_path / "edit.safetensors")
    again = unsee.Edit.load(path)
    assert isinstance(again.deltas[name], LowRank)
    weight = dict(pipe.unet.named_parameters())[name.removeprefix("unet.")]
    base = weight.detach().clone()
    with again.applied(pipe, 0.5):
        torch.testing.assert_close(weight.detach(), base + 0.5 * thin.up @ thin.down)
    wrong = unsee.Edit({name: LowRank(torch.randn(rows, 2), torch.randn(2, columns + 1))}, edit.card)
    with pytest.raises(InputError, match="has shape"), wrong.applied(pipe):
        pass


def test_a_folder_keeps_what_was_finished_in_it(tmp_path: Path) -> None:
    """Hours of edits, when a reproduction or an evaluation is stopped before its own result is there."""
    with pytest.raises(KeyboardInterrupt), claimed(tmp_path / "run", results=["evaluation.json"]):
        (tmp_path / "run" / "edits").mkdir()
        (tmp_path / "run" / "edits" / "church.safetensors").touch()
        raise KeyboardInterrupt
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["edits"]
    with pytest.raises(KeyboardInterrupt), claimed(tmp_path / "nothing", results=["evaluation.json"]):
        raise KeyboardInterrupt
    assert not (tmp_path / "nothing").exists()


def test_a_kept_edit_is_made_once_and_goes_on_where_it_was_stopped(
    pipe: Any, edit: unsee.Edit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    church = [unsee.Concept("church")]
    monkeypatch.setattr("unsee.runs.folder.ResumeFile", partial(ResumeFile, every=0))

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "fit" and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept_edit(tmp_path, unsee.Hybrid(**QUICK), pipe, church, progress=stop)
    (state,) = tmp_path.iterdir()
    assert state.suffix == ".state"
    seen: list[tuple[str, int]] = []
    path = kept_edit(
        tmp_path, unsee.Hybrid(**QUICK), pipe, church, progress=lambda stage, done, _: seen.append((stage, done))
    )
    assert min(done for stage, done in seen if stage == "fit") == 1
    assert list(tmp_path.iterdir()) == [path]
    assert same(unsee.Edit.load(path).deltas, edit.deltas)
    stamp = path.stat().st_mtime_ns
    assert kept_edit(tmp_path, unsee.Hybrid(**QUICK), pipe, church) == path
    assert path.stat().st_mtime_ns == stamp
    others = {
        kept_edit(tmp_path, unsee.Hybrid(**QUICK | {"updates": 1}), pipe, church),
        kept_edit(tmp_path, unsee.Hybrid(**QUICK), pipe, [unsee.Concept("church", anchor="castle")]),
    }
    assert len({path, *others}) == 3


def test_a_kept_edit_is_made_anew_by_other_code_and_with_other_options(
    pipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kept(**call: Any) -> Path:
        model = Model.of(pipe, call=call)
        return kept_edit(
            tmp_path, UCE(preserve_words=0, context_words=0, neutral=("cat",)), model, [unsee.Concept("church")]
        )

    first = kept()
    second = kept(guidance_rescale=0.5)
    assert kept() == first
    monkeypatch.setattr("unsee.runs.folder.code", lambda module: "of another day")
    assert len({first, second, kept()}) == 3


def test_the_code_hash_covers_a_module_and_all_that_it_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    read, code = Path.read_bytes, versions.code.__wrapped__

    def changed(name: str) -> str:
        def other(path: Path) -> bytes:
            return read(path) + (b"# a change" if path.name == name and "unsee" in path.parts else b"")

        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_bytes", other)
            versions.source_of.cache_clear()
            found = str(code("unsee.methods.uce"))
        versions.source_of.cache_clear()
        return found

    assert changed("calls.py") != changed("main.py") == code("unsee.methods.uce")
