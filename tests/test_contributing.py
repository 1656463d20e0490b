"""The examples of CONTRIBUTING.md run."""

import re
from pathlib import Path
from typing import Any

import torch
from test_attacks import context_of
from test_suites import measure, rows, world

from unsee.denoising.activations import means
from unsee.edits.edit import LowRank

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()


def example(name: str) -> dict[str, Any]:
    """What an example of the page defines. Names that it uses are looked up where the page says that they live."""
    (code,) = re.findall(rf"```python {name}\n(.*?)```", TEXT, re.S)
    names: dict[str, Any] = {}
    exec(IMPORTS, names)
    exec(code, names)
    return names


IMPORTS = """
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar
from torch import nn
from unsee.attacks import Attack
from unsee.attacks.context import Found
from unsee.concepts import concepts_of
from unsee.denoising.activations import means
from unsee.denoising.intercept import steered
from unsee.denoising.record import conditions
from unsee.edits.edit import Edit, LowRank
from unsee.evaluate.suites import Suite
from unsee.evaluate.words import article
from unsee.methods.targets import card_of
from unsee.methods.two_denoisers import each_denoiser
from unsee.models.denoisers import denoiser
from unsee.models.distributed import whole_tensor
from unsee.models.weights import text_input_weights
from unsee.progress import no_progress
"""


def test_the_method_projects_the_name_out(pipe: Any) -> None:
    edit = example("method")["Project"]()(pipe, "church")
    name, delta = next(iter(edit.deltas.items()))
    layer = name.removeprefix("unet.").removesuffix(".weight")
    x = means(pipe, ["church"], [layer])[layer]
    assert isinstance(delta, LowRank)
    after = pipe.unet.get_parameter(f"{layer}.weight").float() + delta.dense(torch.Size((len(delta.up), x.shape[-1])))
    assert (after @ x.T).abs().max() < 1e-4 * x.norm()
    assert edit.card.method == "project"


def test_the_guard_moves_a_picture_and_share_zero_does_not(pipe: Any) -> None:
    guard = example("guard")["Negated"]

    def draw(share: float) -> Any:
        with guard("church", share).applied(pipe):
            return latents(pipe)

    assert torch.equal(draw(0.0), latents(pipe))
    assert not torch.equal(draw(1.0), latents(pipe))


def latents(pipe: Any) -> torch.Tensor:
    start = torch.Generator().manual_seed(0)
    drawn = pipe("a church", num_inference_steps=2, guidance_scale=3.0, generator=start, output_type="latent")
    return drawn.images  # type: ignore[no-any-return]


def test_the_attack_finds_the_concept_itself_where_nothing_was_erased(pipe: Any) -> None:
    (found,) = example("attack")["ATTACK"](context_of(pipe, lambda prompt, k: []))
    assert found.prompts == ("a church",)


def test_the_suite_counts_what_is_left(tmp_path: Path) -> None:
    suite = example("suite")["SUITE"]
    assert rows(measure(suite, tmp_path, world(), "church")) == {"erased": 0}
    assert rows(measure(suite, tmp_path / "again", world(), "dog")) == {"erased": 1}
