"""ChamferL1 and ChamferL2 against a full distance matrix in float64."""

from __future__ import annotations

import pytest
import torch
from clouds import helix
from hypothesis import given
from hypothesis import strategies as st

from apml_plugin.functional import chamfer_distance, nearest_neighbours
from apml_plugin.losses import ChamferL1, ChamferL2


def naive(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    d = (x[:, :, None] - y[:, None]).square().sum(dim=-1)
    there, back = d.min(dim=2).values, d.min(dim=1).values
    return (there.sqrt().mean() + back.sqrt().mean()) / 2, there.mean() + back.mean()


@given(batch=st.integers(1, 3), n=st.integers(1, 60), m=st.integers(1, 60), seed=st.integers(0, 1000))
def test_values_and_gradients(batch: int, n: int, m: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, n, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    y = torch.randn(batch, m, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    for loss, exact in zip((ChamferL1()(x, y), ChamferL2()(x, y)), naive(x, y), strict=True):
        assert loss.item() == pytest.approx(exact.item(), rel=1e-12)

        def grads(value: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return torch.autograd.grad(value, (x, y), retain_graph=True)

        for found, wanted in zip(grads(loss), grads(exact), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


def test_golden_values() -> None:
    i, j = torch.arange(64, dtype=torch.float64), torch.arange(96, dtype=torch.float64)
    x = torch.stack((torch.sin(0.7 * i), torch.cos(1.19 * i), torch.sin(0.21 * i + 1)), dim=-1)[None]
    y = torch.stack((0.1 + torch.sin(0.71 * j), torch.cos(1.207 * j), torch.sin(0.213 * j + 1)), dim=-1)[None]
    assert ChamferL2()(x, y).item() == pytest.approx(0.128428220762088, rel=1e-12)
    assert ChamferL1()(x, y).item() == pytest.approx(0.22880625858800763, rel=1e-12)


def test_gradcheck() -> None:
    x = torch.randn(2, 6, 3, dtype=torch.float64, requires_grad=True)
    y = torch.randn(2, 7, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ChamferL1(), (x, y))
    assert torch.autograd.gradcheck(ChamferL2(), (x, y))


@pytest.mark.parametrize("loss", [ChamferL1(), ChamferL2()])
def test_coincident_points_give_gradient_zero_not_nan(loss: torch.nn.Module) -> None:
    x = helix(20, 0.0).requires_grad_()
    value = loss(x, x.detach().clone())
    value.backward()
    assert value.item() == 0.0
    assert not x.grad.any()


@pytest.mark.parametrize("loss", [ChamferL1(reduction="none"), ChamferL2(reduction="none")])
def test_lengths_and_empty_pairs(loss: torch.nn.Module) -> None:
    x, y = torch.randn(3, 10, 3, dtype=torch.float64), torch.randn(3, 12, 3, dtype=torch.float64)
    x.requires_grad_()
    losses = loss(x, y, [10, 4, 0], [12, 5, 12])
    losses.sum().backward()
    assert losses[1].item() == pytest.approx(loss(x[1:2, :4], y[1:2, :5]).item(), rel=1e-12)
    assert losses[2].item() == 0.0
    assert not x.grad[1, 4:].any()
    assert not x.grad[2].any()
    assert loss(torch.rand(0, 3, 3), torch.rand(0, 3, 3)).shape == (0,)
    assert chamfer_distance(torch.rand(0, 3, 3), torch.rand(0, 3, 3)).item() == 0.0


def test_nearest_neighbours() -> None:
    queries, points = torch.randn(50, 3, dtype=torch.float64), torch.randn(70, 3, dtype=torch.float64)
    distance, index = nearest_neighbours(queries, points)
    full = (queries[:, None] - points).square().sum(dim=-1).sqrt()
    assert torch.equal(index, full.argmin(dim=1))
    torch.testing.assert_close(distance, full.min(dim=1).values)
