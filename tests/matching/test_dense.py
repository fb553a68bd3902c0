"""The dense backend in float32: no coordinate and no number of iterations takes it out of range."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apml_plugin.functional import apml_loss, matching_plan
from apml_plugin.matching import dense


def far_cluster(distance: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(8)
    x, y = (torch.rand(1, 200, 3, generator=generator) for _ in range(2))
    x[:, :40] += distance
    return x, y


@pytest.mark.parametrize("iterations", [20, 200])
@pytest.mark.parametrize("distance", [10.0, 100.0])
def test_a_far_cluster_keeps_its_mass(iterations: int, distance: float) -> None:
    """Entries too small for float32 become large in the iterations; the value was off by a factor of three."""
    x, y = far_cluster(distance)
    x.requires_grad_()
    wide = x.detach().double().requires_grad_()
    found = apml_loss(x, y, backend="dense", iterations=iterations)
    exact = apml_loss(wide, y.double(), backend="dense", iterations=iterations)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(exact.item(), rel=1e-4)
    found.backward()
    exact.backward()
    assert (x.grad.double() - wide.grad).norm() <= 1e-3 * wide.grad.norm()
    plans = [matching_plan(c, d, backend="dense", iterations=iterations) for c, d in ((x, y), (wide, y.double()))]
    torch.testing.assert_close(plans[0].to_dense().double(), plans[1].to_dense(), atol=1e-4, rtol=1e-3)


@given(power=st.integers(-120, 120), offset=st.floats(-4, 4), dtype=st.sampled_from([torch.float32, torch.float64]))
@settings(max_examples=50, deadline=None)
def test_costs_are_divided_by_a_power_of_two(power: int, offset: float, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(2, n, 3, generator=generator, dtype=dtype) + offset for n in (5, 6))
    scale = 2.0**power
    unit = dense.unit_of(scale * x, scale * y)
    assert unit.shape == (2, 1, 1)
    assert (torch.frexp(unit).mantissa == 0.5).all()
    assert torch.equal(dense.pairwise_cost(scale * x, scale * y), scale * dense.pairwise_cost(x, y))
