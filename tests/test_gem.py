"""GEM: the hinge by hand, and that a fit stops by itself."""

from typing import Any

import pytest
import torch
from conftest import QUICK

import unsee
from unsee.denoising.record import Runs
from unsee.denoising.replay import replay
from unsee.denoising.rows import stack
from unsee.fit.monitor import error, squared
from unsee.methods import esd
from unsee.methods.gem import GEM, hinge
from unsee.methods.targets import Erasing, apart, training_rows

SMALL = {name: value for name, value in QUICK.items() if hasattr(GEM, name)}


@pytest.mark.parametrize(("eta", "wanted"), [(1.0, [4.0, 0.0]), (0.0, [5.0, 0.0]), (0.5, [4.5, 0.0])])
def test_the_hinge_is_that_derived_by_hand(eta: float, wanted: list[float]) -> None:
    """|y - a| = 5 and |y - c| = 1 in the first row; y = a in the second. Four numbers a row: the norms are halved."""
    answer = torch.tensor([[3.0, 4.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    a, c = torch.tensor([[0.0] * 4, [1.0, 0.0, 0.0, 0.0]]), torch.tensor([[3.0, 3.0, 0.0, 0.0], [0.0] * 4])
    assert (2 * hinge(eta, answer, torch.stack([a, c], 1))).tolist() == pytest.approx(wanted, abs=2e-3)


def test_the_gradient_is_zero_where_the_loss_is_and_first_leads_to_the_anchor() -> None:
    c = torch.ones(1, 3)
    wanted = torch.stack([torch.zeros(1, 3), c], 1)
    for start, still in ((0.2 * c, True), (c, False), (c + 1e-6 * torch.tensor([[1.0, -2.0, 1.0]]), False)):
        y = start.clone().requires_grad_(True)
        (found,) = torch.autograd.grad(hinge(1.0, y, wanted).sum(), y)
        assert torch.isfinite(found).all()
        assert bool((found == 0).all()) is still
        if not still:  # towards the anchor, and not where rounding points
            torch.testing.assert_close(found, c / 3, atol=1e-3, rtol=0)


def test_targets_are_both_predictions_of_the_frozen_model(pipe: Any) -> None:
    concept = unsee.Concept("church", anchor="castle")
    (call, *_) = Erasing(Runs(2), apart, ("{}",)).calls(pipe, concept, 2, torch.Generator().manual_seed(0))
    a, c = call.output.unbind(1)
    assert torch.allclose(replay(pipe.unet, call), c, atol=1e-4)
    assert not torch.allclose(a, c, atol=1e-3)


def test_a_fit_stops_by_itself(shipped: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row ends nearer to the anchor than to what it was, and later updates have no loss."""
    losses: list[float] = []
    fit = esd.fit
    monkeypatch.setattr(esd, "fit", lambda *given, **more: losses.extend(fit(*given, **more)))
    method = GEM(record_steps=3, runs=2, batch=6, updates=24)
    edit = method(shipped, "church")
    assert losses[0] > 0
    assert losses[-1] == 0
    rng = torch.Generator().manual_seed(0)
    calls = Erasing(Runs(3, 3.0, "pipeline", 12), apart, ("{}",)).calls(shipped, unsee.Concept("church"), 2, rng)
    rows = stack(training_rows(calls)[0])
    with edit.applied(shipped), torch.no_grad():
        y = replay(shipped.unet, rows)
        assert (squared(y, rows.output[:, 0]) < squared(y, rows.output[:, 1])).all()
        assert float(error(shipped.unet, rows, lambda y, w: hinge(1.0, y, w)).max()) == 0


def test_another_eta_gives_another_edit(pipe: Any) -> None:
    one, other = (GEM(**{**SMALL, "eta": eta})(pipe, "church") for eta in (1.0, 0.0))
    name = next(iter(one.deltas))
    assert not torch.equal(one.deltas[name], other.deltas[name])  # type: ignore[arg-type]
    assert one.card.method == "gem"
