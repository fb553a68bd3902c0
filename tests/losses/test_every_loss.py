"""What every loss between two clouds promises, whichever family it is of."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pointlosses import POINT_LOSSES, config_of, loss_of
from torch import Tensor

from apml_plugin.errors import LossArgumentError, LossValueError
from apml_plugin.registry import build_loss

# The plan is held constant in APML's gradient, as published; with `differentiate_plan` it is the value's derivative.
# Sinkhorn's gradient is that of converged potentials, which a slow descent to a large blur comes near.
WHOLE_GRADIENT: dict[str, dict[str, Any]] = {
    **{name: {"differentiate_plan": True} for name in ("APML", "APMLSparse", "AdaptiveProbabilisticMatchingLoss")},
    "Sinkhorn": {"blur": 1.0, "scaling": 0.998},
}


def clouds(n: int = 9, m: int = 12, batch: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    make = lambda k: torch.rand(batch, k, 3, generator=generator, dtype=torch.float64)  # noqa: E731
    return make(n), make(m)


@pytest.fixture(params=POINT_LOSSES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_the_gradient_is_that_of_the_value(name: str) -> None:
    loss = loss_of(name, **WHOLE_GRADIENT.get(name, {}))
    pred, gt = clouds()
    loss(pred.requires_grad_(), gt.requires_grad_()).backward()
    generator = torch.Generator().manual_seed(5)
    for cloud in (pred, gt):
        way = torch.randn(cloud.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            step = 1e-6 * way
            moved = [(pred + s * step, gt) if cloud is pred else (pred, gt + s * step) for s in (1, -1)]
            slope = (loss(*moved[0]) - loss(*moved[1])).item() / 2e-6
        tolerance = 5e-4 if name == "Sinkhorn" else 2e-5
        assert (cloud.grad * way).sum().item() == pytest.approx(slope, rel=tolerance, abs=1e-8)


def test_the_order_of_points_does_not_matter(name: str) -> None:
    loss = loss_of(name)
    pred, gt = clouds(20, 25)
    value = loss(pred, gt).item()
    generator = torch.Generator().manual_seed(7)
    shuffled = [c[:, torch.randperm(c.shape[1], generator=generator)] for c in (pred, gt)]
    # An approximate assignment may differ within its tolerance.
    tolerance = 1e-4 if name == "ApproximateEMD" else 1e-10
    assert loss(*shuffled).item() == pytest.approx(value, rel=tolerance)


def test_padding_does_not_count(name: str) -> None:
    loss = loss_of(name)
    pred, gt = clouds(9, 12, batch=1)
    other = clouds(7, 10, batch=1, seed=1)
    alone = [loss(pred, gt).item(), loss(*other).item()]
    padded = [torch.full((2, k + 5, 3), 17.0, dtype=torch.float64) for k in (9, 12)]
    for b, pair in enumerate(((pred, gt), other)):
        for cloud, values in zip(padded, pair, strict=True):
            cloud[b, : values.shape[1]] = values[0]
    for cloud in padded:
        cloud.requires_grad_()
    value = loss(*padded, pred_lengths=[9, 7], gt_lengths=[12, 10])
    assert value.item() == pytest.approx(sum(alone) / 2, rel=1e-12)
    value.backward()
    for cloud, lengths in zip(padded, ((9, 7), (12, 10)), strict=True):
        for b, length in enumerate(lengths):
            assert cloud.grad[b, length:].abs().max() == 0
            assert torch.isfinite(cloud.grad).all()


def test_equal_points_give_a_finite_gradient(name: str) -> None:
    loss = loss_of(name)
    pred, _ = clouds(10)
    pred[:, 5] = pred[:, 4]
    gt = pred.clone()
    loss(pred.requires_grad_(), gt.requires_grad_()).backward()
    assert torch.isfinite(pred.grad).all()
    assert torch.isfinite(gt.grad).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision_is_close(name: str, dtype: torch.dtype) -> None:
    loss = loss_of(name)
    # Coordinates that bfloat16 holds exactly, so that only the computing differs.
    pred, gt = ((c * 64).round() / 64 for c in clouds(30, 30, seed=3))
    value = loss(pred, gt).item()
    assert loss(pred.to(dtype), gt.to(dtype)).item() == pytest.approx(value, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30])
@pytest.mark.parametrize("arguments", [{}, {"backend": "dense"}, {"backend": "sparse"}], ids=str)
def test_float32_at_any_scale(name: str, arguments: dict[str, Any], scale: float) -> None:
    """The float64 value and gradient of the same coordinates, or an error where float32 cannot hold the value."""
    if arguments and name != "APML":
        pytest.skip("backends are those of APML")
    loss = loss_of(name, **arguments)
    x, y = ((scale * cloud).float() for cloud in clouds(20, 25))
    wide = x.double().requires_grad_()
    exact = loss(wide, y.double())
    exact.backward()
    x.requires_grad_()
    if exact.abs() > torch.finfo(torch.float32).max / len(x):  # that of the sum over the batch
        with pytest.raises(LossValueError, match="larger than float32 can hold"):
            loss(x, y)
        return
    value = loss(x, y)
    value.backward()
    assert value.item() == pytest.approx(exact.item(), rel=1e-4, abs=1e-38)
    assert (x.grad.double() - wide.grad).norm() <= 1e-3 * wide.grad.norm()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x * math.nan, y), "NaN"),
        (lambda x, y: (x, y / 0), "gt"),
        (lambda x, y: (x[0], y), "pred"),
        (lambda x, y: (x[:1], y), "batch"),
        (lambda x, y: (x[..., :2], y), "gt"),
        (lambda x, y: (x.long(), y), "pred"),
    ],
)
def test_unusable_clouds_are_named(name: str, change: Any, message: str) -> None:
    with pytest.raises((LossValueError, LossArgumentError), match=message):
        loss_of(name)(*change(*clouds()))


def test_an_argument_there_is_not_is_named(name: str) -> None:
    with pytest.raises(LossArgumentError, match=f"{name} takes no argument 'colour'"):
        build_loss({**config_of(name), "colour": "red"})


def test_no_state_enters_a_checkpoint(name: str) -> None:
    loss = loss_of(name)
    assert not loss.state_dict()
    assert not list(loss.parameters())
    assert loss.describe().startswith(f"{name}(")
