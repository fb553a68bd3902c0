"""The CUDA `nearest` and `chamfer`, run on the CPU, against all pairs written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from clouds import lattice, sphere
from torch import Tensor

from apml_plugin.matching.dense import pairwise_cost


def all_pairs(x: Tensor, y: Tensor) -> Tensor:
    """Squared distances (..., N, M) in float64, coordinates in order."""
    return sum(((x[..., :, None, k] - y[..., None, :, k]).double() ** 2 for k in range(x.shape[-1])), torch.zeros(()))


CLOUDS = {
    "sphere": (sphere(100, 2), sphere(70, 2, seed=1)),
    "blob": (0.05 * sphere(1100, 1), sphere(300, 1, seed=1)),
    "lattice": (lattice(5), lattice(4) + 0.5),
    "one": (sphere(1), sphere(40, seed=1)),
    "duplicated": (sphere(40), sphere(40).repeat(1, 3, 1)),
    "plane": (sphere(40)[..., :2].contiguous(), sphere(33, seed=1)[..., :2].contiguous()),
    "several blocks": (sphere(50), sphere(2500, seed=1)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CLOUDS)
def test_nearest(ops: Any, case: str, dtype: torch.dtype) -> None:
    x, y = (cloud.to(dtype) for cloud in CLOUDS[case])
    squared, index = ops.nearest(x, y, None, None)
    pairs = all_pairs(x.double(), y.double())
    # Of equally near points the first: argmin leaves that open, so ask for it.
    first = (pairs == pairs.min(dim=-1, keepdim=True).values).to(torch.uint8).argmax(dim=-1)
    assert torch.equal(index, first)
    assert torch.equal(squared, pairs.min(dim=-1).values.to(dtype))


def test_nearest_with_lengths(ops: Any) -> None:
    x, y = sphere(40, 3), sphere(50, 3, seed=1)
    y[0, 20:] = torch.nan
    squared, index = ops.nearest(x, y, torch.tensor([40, 7, 9]), torch.tensor([20, 50, 0]))
    assert torch.equal(index[0], all_pairs(x[0], y[0, :20]).argmin(dim=-1))
    assert torch.equal(index[1, :7], all_pairs(x[1, :7], y[1]).argmin(dim=-1))
    assert (index[1, 7:] == -1).all()
    assert (index[2] == -1).all()
    assert not squared[1, 7:].any()
    assert not squared[2].any()


def chamfer(x: Tensor, y: Tensor, squared: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Losses (B,) and both gradients from autograd over all pairs, in float64."""
    x, y = x.double().requires_grad_(), y.double().requires_grad_()
    if squared:
        pairs = ((x[:, :, None] - y[:, None]) ** 2).sum(dim=-1)
        losses = pairs.min(dim=2).values.mean(dim=1) + pairs.min(dim=1).values.mean(dim=1)
    else:
        pairs = pairwise_cost(x, y)
        losses = (pairs.min(dim=2).values.mean(dim=1) + pairs.min(dim=1).values.mean(dim=1)) / 2
    return losses.detach(), *torch.autograd.grad(losses.sum(), (x, y))


@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize("case", ["sphere", "blob", "one", "plane", "several blocks"])
def test_chamfer(ops: Any, case: str, squared: bool) -> None:
    x, y = CLOUDS[case]
    given = ops.chamfer(x, y, None, None, squared, True)
    for one, expected in zip(given, chamfer(x, y, squared), strict=True):
        torch.testing.assert_close(one, expected, rtol=1e-12, atol=1e-14)
    half = ops.chamfer(x.float(), y.float(), None, None, squared, True)
    for one, expected in zip(half, chamfer(x.float(), y.float(), squared), strict=True):
        torch.testing.assert_close(one.double(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("squared", [True, False])
def test_chamfer_of_equal_clouds(ops: Any, squared: bool) -> None:
    losses, pred_grad, gt_grad = ops.chamfer(sphere(40), sphere(40), None, None, squared, True)
    assert losses.item() == 0
    assert not pred_grad.any()
    assert not gt_grad.any()


@pytest.mark.parametrize("squared", [True, False])
def test_chamfer_with_lengths(ops: Any, squared: bool) -> None:
    x, y = sphere(40, 3), sphere(50, 3, seed=1)
    x_n, y_n = [40, 7, 9], [20, 50, 0]
    x[1, 7:] = y[0, 20:] = torch.nan
    losses, pred_grad, gt_grad = ops.chamfer(x, y, torch.tensor(x_n), torch.tensor(y_n), squared, True)
    for b in range(2):
        value, x_grad, y_grad = chamfer(x[b : b + 1, : x_n[b]], y[b : b + 1, : y_n[b]], squared)
        torch.testing.assert_close(losses[b : b + 1], value)
        torch.testing.assert_close(pred_grad[b, : x_n[b]], x_grad[0])
        torch.testing.assert_close(gt_grad[b, : y_n[b]], y_grad[0])
        assert not pred_grad[b, x_n[b] :].any()
        assert not gt_grad[b, y_n[b] :].any()
    assert losses[2] == 0
    assert not pred_grad[2].any()


def test_no_gradients_wanted(ops: Any) -> None:
    x, y = CLOUDS["sphere"]
    losses, pred_grad, gt_grad = ops.chamfer(x, y, None, None, True, False)
    torch.testing.assert_close(losses, chamfer(x, y, True)[0])
    assert pred_grad.shape == gt_grad.shape == (2, 0, 3)


def test_not_finite_shows(ops: Any) -> None:
    x, y = sphere(40), sphere(40, seed=1)
    y[0, 3] = torch.nan
    assert ops.chamfer(x, y, None, None, True, True)[0].isnan().all()


def test_order_of_threads_changes_no_bit_of_chamfer(ops: Any, monkeypatch: Any) -> None:
    x, y = (cloud.float() for cloud in CLOUDS["blob"])
    runs = []
    for reverse in "01":
        monkeypatch.setenv("APML_EMULATED_REVERSE", reverse)
        runs.append(ops.chamfer(x, y, None, None, False, True))
    for one, other in zip(*runs, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("n", "m"), [(0, 5), (5, 0), (0, 0)])
def test_nearest_and_chamfer_of_nothing(ops: Any, n: int, m: int) -> None:
    x, y = torch.randn(2, n, 3), torch.randn(2, m, 3)
    squared, index = ops.nearest(x, y, None, None)
    assert squared.shape == index.shape == (2, n)
    assert (index == -1).all()
    losses, pred_grad, _ = ops.chamfer(x, y, None, None, True, True)
    assert not losses.any()
    assert pred_grad.shape == x.shape
