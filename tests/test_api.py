"""The public names: their examples run, their reference is that of the docstrings, and errors are of one family."""

import ast
import doctest
import gc
import importlib.util
import inspect
import pickle
import re
import weakref
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Run
from PIL import ImageChops

import unsee
from unsee import methods
from unsee.cli.flags import FLAGS
from unsee.errors import InputError
from unsee.evaluate.render import sampling_of
from unsee.models import fingerprint as fingerprints
from unsee.models.fingerprint import fingerprint

SOURCE = Path(unsee.__file__).parent


def examples(name: str) -> list[doctest.DocTest]:
    """The examples of a public name and of its methods."""
    one = getattr(unsee, name)
    members = [getattr(one, key) for key in vars(one) if not key.startswith("_")] if isinstance(one, type) else []
    parser, found = doctest.DocTestParser(), []
    for part in [one, *filter(inspect.isroutine, members)]:
        test = parser.get_doctest(inspect.getdoc(part) or "", {}, part.__qualname__, None, None)
        found += [test] if test.examples else []
    return found


@pytest.mark.usefixtures("mini_is_tiny")
@pytest.mark.parametrize("name", unsee.__all__)
def test_each_public_name_has_an_example_that_runs(
    name: str, pipe: Any, edit: unsee.Edit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = examples(name)
    assert any(test.name == name for test in found)
    for test in found:
        assert len(test.examples) <= 2
        test.globs.update(unsee=unsee, pipe=pipe, edit=edit)
        said: list[str] = []
        failed = doctest.DocTestRunner().run(test, out=said.append).failed
        assert not failed, "".join(said)


def test_the_reference_page_matches_the_docstrings() -> None:
    place = Path(__file__).parents[1] / "docs" / "api.py"
    spec = importlib.util.spec_from_file_location("api", place)
    assert spec
    assert spec.loader
    api = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(api)
    assert api.PAGE.read_text(encoding="utf-8") == api.reference(), "docs/api.md is stale: run python docs/api.py"


def test_type_checkers_see_the_public_names_that_python_finds() -> None:
    tree = ast.parse((SOURCE / "__init__.py").read_text())
    imported = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("unsee.")
        for alias in node.names
    }
    assert imported == {name: getattr(unsee, name).__module__ for name in unsee.__all__}
    rooms = {path.stem for path in SOURCE.iterdir()}
    assert not rooms & set(unsee.__all__)  # a room, once imported, would stand in the name's place
    for name in unsee.__all__:
        one = getattr(unsee, name)
        public = [getattr(one, key) for key in vars(one) if not key.startswith("_")] if isinstance(one, type) else [one]
        for part in filter(inspect.isfunction, public):
            arguments = inspect.signature(part).parameters.values()
            assert all(a.annotation is not a.empty for a in arguments if a.name not in ("self", "cls")), part
            assert not any("Any" in str(a.annotation) for a in arguments if a.name == "pipe"), part
            assert inspect.signature(part).return_annotation not in (inspect.Signature.empty, "Any", Any), part


WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: unsee.Hybrid(eta=-1), "eta: input should be greater than or equal to 0, got -1"),
    (lambda: unsee.LoRA(rnk=3), "unknown setting 'rnk': did you mean 'rank'"),
    (lambda: unsee.UCE(eta="far"), "eta: input should be a valid number"),
    (lambda: unsee.Concept(""), "erase: a concept is one or more words, not an empty text"),
    (lambda: unsee.Concept("hat", "cowboy", anchor=" "), "anchor: a concept is one or more words"),
    (lambda: unsee.SLD("church", warmup=-1), "warmup: input should be greater than or equal to 0"),
    (lambda: unsee.NegativePrompt(""), "concept: string should have at least 1 character"),
    (lambda: unsee.load("nowhere/at/all"), "there is no model 'nowhere/at/all'"),
    (lambda: unsee.Edit.load("nowhere.safetensors"), "nowhere.safetensors"),
    (lambda: unsee.erase("church", "out", metod="uce"), "unknown setting 'metod': did you mean 'method'"),
    (lambda: unsee.measure("tiny", "out", ["objcts"]), "unknown suite 'objcts': did you mean 'objects'"),
]


@pytest.mark.parametrize(("make", "said"), WRONG, ids=[said for _, said in WRONG])
def test_a_wrong_library_call_raises_an_input_error_of_one_line(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(InputError) as raised:
        make()
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", methods.names())
def test_a_wrong_setting_of_every_method_raises_an_error_of_one_line(name: str) -> None:
    with pytest.raises(InputError, match="unknown setting 'no_setting'"):
        methods.find(name)(no_setting=1)


def texts(path: Path) -> list[str]:
    """The texts in a file's code that are no docstrings; of f-strings, what is between their values."""
    tree = ast.parse(path.read_text())
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        n.value
        for n in ast.walk(tree)
        if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in bare
    ]


PAGES = ("app", "cli", "mini", "report", "export/hub.py")
"""What speaks of commands: the command line, the app, and pages and files that are read beside it."""
LIBRARY = [path for path in sorted(SOURCE.rglob("*.py")) if not path.relative_to(SOURCE).as_posix().startswith(PAGES)]


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_library_messages_name_arguments_and_no_command_line_options(path: Path) -> None:
    for text in texts(path):
        assert not re.search(
            r"(^|[\s(,;:])(--[a-z]|-n\b)|unsee (merge|import|erase|generate|evaluate|export|verify)\b", text
        ), text
        for name in re.findall(r"`([^`]+)`", text):
            assert name in FLAGS or name in ("make mini-flow", "remove", "apply"), (
                f"cli/flags.py has no option for {name}"
            )


def test_command_line_messages_name_options(run: Run, tmp_path: Path) -> None:
    (tmp_path / "edit.pt").write_bytes(b"x")
    said = [
        run("generate", "a church", "--edit", "edit.pt")[2],
        run("evaluate", "tiny", "--suite", "objects", "-n", 1)[2],
    ]
    assert "unsee import FILE --model MODEL --out EDIT.safetensors with --unpickle converts one" in said[0]
    assert "`" not in "".join(said)


@pytest.fixture
def other(pipe: Any) -> unsee.Edit:
    """A second edit of the same base that changes the same weights as UCE."""
    return unsee.UCE(preserve_words=0, context_words=0)(pipe, "dog")


def weights(pipe: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in pipe.unet.state_dict().items()}


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, two[name]) for name, value in one.items())


def test_remove_restores_every_bit_after_apply(pipe: Any, edit: unsee.Edit, other: unsee.Edit) -> None:
    base = weights(pipe)
    with edit.applied(pipe):
        edited = weights(pipe)
    edit.apply(pipe)
    assert same(weights(pipe), edited)
    with pytest.raises(InputError, match="another edit is applied already"):
        other.apply(pipe)
    with pytest.raises(InputError, match="this edit is not in the pipeline"):
        other.remove(pipe)
    edit.remove(pipe)
    assert same(weights(pipe), base)
    with pytest.raises(InputError, match="this edit is not in the pipeline"):
        edit.remove(pipe)


def test_an_applied_edit_keeps_no_pipeline_in_memory(tiny: Any, edit: unsee.Edit) -> None:
    mine = deepcopy(tiny)
    edit.apply(mine)
    gone = weakref.ref(mine), weakref.ref(mine.unet)
    del mine
    gc.collect()
    assert [one() for one in gone] == [None, None]


def test_edits_of_one_base_add_up_where_they_change_the_same_weight(
    pipe: Any, edit: unsee.Edit, other: unsee.Edit
) -> None:
    base, met = weights(pipe), {name.removeprefix("unet.") for name in edit.deltas.keys() & other.deltas.keys()}
    assert met
    alone = []
    for one in (edit, other):
        with one.applied(pipe):
            alone.append(weights(pipe))
    with unsee.applied(pipe, [edit, other], [1.0, 0.5]):
        both = weights(pipe)
    for name in met:
        expected = base[name] + (alone[0][name] - base[name]) + 0.5 * (alone[1][name] - base[name])
        torch.testing.assert_close(both[name], expected, atol=1e-6, rtol=1e-5)
    assert same(weights(pipe), base)


def test_edits_of_other_bases_are_refused_in_one_line(pipe: Any, edit: unsee.Edit, other: unsee.Edit) -> None:
    with edit.applied(pipe):
        above = unsee.UCE(preserve_words=0, context_words=0)(pipe, "dog")
    with pytest.raises(InputError, match="these edits were made for different weights") as raised:  # noqa: SIM117
        with unsee.applied(pipe, [other, above]):
            pass
    assert "\n" not in str(raised.value)


def test_weights_are_hashed_once_and_again_after_a_change(
    tiny: Any, edit: unsee.Edit, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, hashed, whole = deepcopy(tiny), [], fingerprints.hash_of
    monkeypatch.setattr(fingerprints, "hash_of", lambda values: hashed.append(1) or whole(values))
    for _ in range(3):
        with edit.applied(pipe):
            pass
    edit.apply(pipe)
    edit.remove(pipe)
    assert len(hashed) == 1
    weight = pipe.unet.get_parameter(next(iter(edit.deltas)).removeprefix("unet."))
    with torch.no_grad():
        weight.add_(1)
    with pytest.raises(InputError, match="this edit was made for"), edit.applied(pipe):
        pass
    weight.data.sub_(1)  # which torch counts no version of
    before = fingerprint(pipe.unet)
    weight.data = weight.data + 1
    assert fingerprint(pipe.unet) != before


def test_new_weights_at_an_old_memory_address_are_hashed_again(tiny: Any) -> None:
    pipe = deepcopy(tiny)
    weight = pipe.unet.get_parameter("conv_in.weight")
    found = set()
    for k in range(1, 6):  # each value takes the place in memory that the one before has left
        weight.data = torch.cat([torch.full_like(weight.data[:-1], k), torch.zeros_like(weight.data[-1:])])
        found.add(fingerprint(pipe.unet))
    assert len(found) == 5


def test_a_picture_does_not_depend_on_its_batch(pipe: Any) -> None:
    three = unsee.generate(pipe, ["a church", "a dog"], n=2, seed=5, steps=2)
    assert len(three) == 4
    alone = unsee.generate(pipe, "a dog", seed=6, steps=2)[0]
    assert max(high for _, high in ImageChops.difference(three[3], alone).getextrema()) <= 2
    assert sampling_of(pipe).steps == 10


def test_a_concept_can_be_pickled() -> None:
    concept = unsee.Concept("hat", from_="cowboy", keep="dog")
    assert pickle.loads(pickle.dumps(concept)) == concept
