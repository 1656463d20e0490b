"""Guards on every family of the zoo: they act, at any size, or say in one line why not."""

from typing import Any

import pytest
import torch
import zoo
from torch import Tensor

from unsee import guards
from unsee.denoising.guidance import for_pictures
from unsee.errors import InputError
from unsee.models.model import call_options
from unsee.models.sampling import draw

DISTILLED = {"flux-dev", "flux-schnell"}
"""Their guidance is a number that the network reads: there is no prediction without the prompt."""
TIED = {"chroma"}
"""The text's mask holds the picture's places too: it fits one size."""
TWO = {"wan-2.2"}


def latents(pipe: Any, **options: Any) -> Tensor:
    options = {**for_pictures(pipe, 4.0), "output_type": "latent", **options}
    found = draw(pipe, ["a church", "a cat"], [0, 1], 2, **options)
    found = found[0]
    return torch.stack(list(found)) if isinstance(found, list) else found


@pytest.mark.parametrize("family", sorted(zoo.ZOO))
def test_a_guard_acts_or_is_refused_in_one_line(family: str) -> None:
    pipe = zoo.build(family)
    guard = guards.named("sld-max", "a dog")
    if family in DISTILLED | TWO:
        with pytest.raises(InputError) as refused, guard.applied(pipe):
            latents(pipe)
        assert "\n" not in str(refused.value)
        return
    plain = latents(pipe)
    with guard.applied(pipe):
        guarded = latents(pipe)
    assert torch.isfinite(guarded).all()
    assert (guarded - plain).abs().max() > 1e-2
    torch.testing.assert_close(latents(pipe), plain)
    side = call_options(pipe).get("height")
    if side is None or family == "pixart-sigma":  # no size is kept with it
        return
    if family in TIED:
        with pytest.raises(InputError, match="ties its texts to the picture's size") as refused, guard.applied(pipe):
            latents(pipe, height=2 * side, width=2 * side)
        assert "\n" not in str(refused.value)
        return
    with guard.applied(pipe):
        assert latents(pipe, height=2 * side, width=2 * side).numel() > plain.numel()
