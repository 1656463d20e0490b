"""Guards against numbers worked out by hand, on pipelines that batch the two conditions and that call twice."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unsee import guards
from unsee.errors import InputError
from unsee.guards import SLD, NegativePrompt

SAYS = {"cat": 0.5, "church": 0.3, "": -0.25}
"""What the fake denoiser predicts for a text, at every pixel, whatever the latent."""


class Denoiser(nn.Module):
    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor, return_dict: bool = True) -> Any:
        out = text[:, None].expand(-1, sample.shape[1]).clone()
        return SimpleNamespace(sample=out) if return_dict else (out,)


class Pipeline:
    """The loop that all diffusers pipelines have: x <- x - (u + g (c - u)) / S, from standard normal noise.

    order    "cu" or "uc"
    batched  one denoiser call a step, or two
    """

    def __init__(self, order: str, batched: bool, guided: bool = True):
        self.unet, self.order, self.batched, self.guided = Denoiser(), order, batched, guided
        self.scheduler = SimpleNamespace(timesteps=None, compatibles=[])
        self.components = {"unet": self.unet, "scheduler": self.scheduler}
        self.followed: list[Tensor] = []

    def __call__(
        self,
        prompt: list[str],
        generator: list[torch.Generator],
        num_inference_steps: int = 50,
        guidance_scale: float = 3.0,
        output_type: str = "latent",
    ) -> Tensor:
        x = torch.stack([torch.randn(4, generator=one) for one in generator])
        self.scheduler.timesteps = torch.arange(num_inference_steps).flip(0) * 10
        self.followed = []
        texts = {"c": torch.tensor([SAYS[word] for word in prompt]), "u": torch.full((len(prompt),), SAYS[""])}
        order = self.order if guidance_scale > 1 and self.guided else "c"
        for t in self.scheduler.timesteps:
            if self.batched:
                out = self.unet(
                    torch.cat([x] * len(order)), t, torch.cat([texts[k] for k in order]), return_dict=False
                )[0]
                said = dict(zip(order, out.chunk(len(order))))
            else:
                said = {k: self.unet(x, t, texts[k], return_dict=False)[0] for k in order}
            e = said["u"] + guidance_scale * (said["c"] - said["u"]) if len(order) == 2 else said["c"]
            self.followed.append(e)
            x = x - e / num_inference_steps
        return x


WAYS = [(order, batched) for order in ("uc", "cu") for batched in (True, False)]


@pytest.fixture(params=WAYS, ids=lambda way: f"{way[0]}-{'batched' if way[1] else 'twice'}")
def fake(request: pytest.FixtureRequest) -> Pipeline:
    return Pipeline(*request.param)


def draw(pipe: Pipeline, prompts: tuple[str, ...] = ("cat",), **options: Any) -> list[Tensor]:
    """What the pipeline followed at each step, one row a prompt."""
    options = {"num_inference_steps": 4, **options}
    pipe(prompt=list(prompts), generator=[torch.Generator().manual_seed(k) for k in range(len(prompts))], **options)
    return [e[:, 0] for e in pipe.followed]


def test_the_negative_prompt_gives_the_prediction_derived_by_hand(fake: Pipeline) -> None:
    # s + g (c - s) = 0.3 + 3 (0.5 - 0.3) = 0.9 instead of -0.25 + 3 * 0.75 = 2.0
    assert torch.stack(draw(fake)).flatten().tolist() == pytest.approx([2.0] * 4)
    with NegativePrompt("church").applied(fake):
        assert torch.stack(draw(fake)).flatten().tolist() == pytest.approx([0.9] * 4)
    assert torch.stack(draw(fake)).flatten().tolist() == pytest.approx([2.0] * 4)


def test_sld_gives_the_prediction_derived_by_hand(fake: Pipeline) -> None:
    """c = 0.5, u = -0.25, s = 0.3, scale 2, threshold 1: c - s = 0.2 < 1, so mu = min(1, 2 * 0.2) = 0.4.

    step 0  gamma = 0.4 * 0.55 = 0.22                      nu = 0.6 * 0.22 = 0.132                 warm-up: 2.0
    step 1  gamma = 0.22 + 0.5 * 0.132 = 0.286             nu = 0.4 * 0.132 + 0.6 * 0.286 = 0.2244
            followed: -0.25 + 3 (0.75 - 0.286) = 1.142
    step 2  gamma = 0.22 + 0.5 * 0.2244 = 0.3322           followed: -0.25 + 3 (0.75 - 0.3322) = 1.0034
    """
    guard = SLD("church", warmup=1, scale=2, threshold=1, momentum=0.5, beta=0.4)
    with guard.applied(fake):
        for _ in range(2):  # the momentum starts anew in every run
            followed = [float(e) for e in draw(fake, num_inference_steps=3)]
            assert followed == pytest.approx([2.0, 1.142, 1.0034], abs=1e-5)
        # Runs of one step are runs of their own too.
        assert [float(draw(fake, num_inference_steps=1)[0]) for _ in range(2)] == pytest.approx([2.0, 2.0])


def test_sld_leaves_alone_what_is_far_from_the_concept(fake: Pipeline) -> None:
    with SLD("church", warmup=0, scale=2, threshold=0.1, momentum=0, beta=0).applied(fake):
        cat, church = draw(fake, ("cat", "church"), num_inference_steps=1)[0].tolist()
    assert cat == pytest.approx(2.0)  # c - s = 0.2 >= 0.1: mu = 0
    assert church == pytest.approx(-0.25 + 3 * 0.55)  # c = s: mu = 0 as well, by its factor |c - s|


@pytest.mark.parametrize("steps", [4, 20, 50])
def test_the_warm_up_counts_steps_however_many_there_are(fake: Pipeline, steps: int) -> None:
    with SLD("church", warmup=3, scale=2, threshold=1, momentum=0, beta=0).applied(fake):
        followed = torch.stack(draw(fake, num_inference_steps=steps)).flatten().tolist()
    assert followed == pytest.approx([2.0] * 3 + [-0.25 + 3 * (0.75 - 0.22)] * (steps - 3))


GUARDS: list[Callable[[str], guards.Guard]] = [NegativePrompt, SLD]


@pytest.mark.parametrize("guard", GUARDS)
def test_a_pipeline_without_guidance_takes_no_guard(guard: Callable[[str], guards.Guard]) -> None:
    with (
        pytest.raises(InputError, match="Pipeline has no classifier-free guidance"),
        guard("church").applied(Pipeline("uc", True, guided=False)),
    ):
        pass


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("prompts", [("cat",), ("cat", "church")])
def test_a_run_without_guidance_is_refused(way: tuple[str, bool], prompts: tuple[str, ...]) -> None:
    pipe = Pipeline(*way)
    with SLD("church").applied(pipe), pytest.raises(InputError, match="guidance scale above 1"):
        draw(pipe, prompts, guidance_scale=1.0)


def test_the_hook_leaves_also_after_an_error(fake: Pipeline) -> None:
    with pytest.raises(RuntimeError), SLD("church").applied(fake):
        raise RuntimeError
    assert not fake.unet._forward_hooks


def test_guards_change_pictures_of_a_real_pipeline(pipe: Any) -> None:
    """The negative prompt is the pipeline's own; SLD without strength changes nothing; with it, pictures change."""

    def latents(**options: Any) -> Tensor:
        out = pipe(
            prompt=["a church", "a dog"],
            generator=[torch.Generator().manual_seed(k) for k in (1, 2)],
            num_inference_steps=3,
            guidance_scale=4.0,
            output_type="latent",
            **options,
        )
        return out.images  # type: ignore[no-any-return]

    plain = latents()
    with NegativePrompt("church").applied(pipe):
        guarded = latents()
    torch.testing.assert_close(guarded, latents(negative_prompt=["church"] * 2), atol=1e-4, rtol=1e-4)
    with SLD("church", warmup=0, scale=0).applied(pipe):
        torch.testing.assert_close(latents(), plain, atol=1e-5, rtol=1e-5)
    with SLD("church", **SLD.presets["max"]).applied(pipe):
        assert (latents() - plain).abs().mean() > 0.01
    assert torch.equal(latents(), plain)


def test_guards_are_found_by_name() -> None:
    assert guards.names() == ["negative", "sld-weak", "sld-medium", "sld-strong", "sld-max"]
    strongest = guards.named("sld-max", "church")
    assert isinstance(strongest, SLD)
    assert (strongest.warmup, strongest.scale, strongest.threshold) == (0, 5000, 1)
    with pytest.raises(InputError, match="did you mean 'sld-max'"):
        guards.named("sld-maxx", "church")
    with pytest.raises(InputError):
        SLD("church", beta=1.5)
