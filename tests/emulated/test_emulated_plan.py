"""The CUDA `plan` and the differentiated `match`, run on the CPU, against the dense backend."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from clouds import lattice, sphere
from torch import Tensor

from apml_plugin.matching import dense, sparse
from apml_plugin.matching.settings import Settings


def written_out(parts: tuple[Tensor, ...], shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """The whole plan (B, N, M) as schema.h puts it together, and dropped (B,)."""
    indices, values, dropped, row_spread, column_spread, row_scale, column_scale = parts
    entries = torch.zeros(shape, dtype=torch.float64)
    entries[tuple(indices)] = values.double()
    assert len(indices.unique(dim=1).T) == len(values)  # each entry once
    sorted_keys = (indices[0] * shape[1] + indices[1]) * shape[2] + indices[2]
    assert (sorted_keys.diff() > 0).all()
    rows = row_spread[:, :, None] * column_scale[:, None]
    return entries + rows + row_scale[:, :, None] * column_spread[:, None], dropped


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("ties", ["share", "uniform"])
@pytest.mark.parametrize("iterations", [0, 20, 70])
def test_plan(ops: Any, dtype: torch.dtype, ties: str, iterations: int) -> None:
    at = Settings(threshold=1e-30, ties=ties, iterations=iterations)
    twins = torch.cat((sphere(60, 2, seed=1), sphere(60, 2, seed=1)[:, :9]), dim=1)
    for x, y in ((sphere(50, 2), twins), (lattice(4), lattice(4))):
        x, y = x.to(dtype), y.to(dtype)
        parts = ops.plan(x, y, None, None, at.p_min, at.threshold, iterations, at.eps, ties == "uniform")
        plan, dropped = written_out(parts, (len(x), x.shape[1], y.shape[1]))
        expected = dense.plan(dense.pairwise_cost(x.double(), y.double()), at)
        torch.testing.assert_close(plan, expected, rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-12)
        for b in range(len(x)):
            bound = sparse.pair_plan(x[b].double(), y[b].double(), at).dropped
            assert dropped[b].item() == pytest.approx(bound, rel=1e-5)


def test_plan_with_lengths(ops: Any) -> None:
    x, y = sphere(40, 2), sphere(50, 2, seed=1)
    x[0, 11:] = torch.nan
    parts = ops.plan(x, y, torch.tensor([11, 40]), torch.tensor([50, 0]), 0.8, 1e-30, 20, 1e-8, False)
    plan, dropped = written_out(parts, (2, 40, 50))
    expected = dense.plan(dense.pairwise_cost(x[0, :11], y[0]), Settings(threshold=1e-30))
    torch.testing.assert_close(plan[0, :11], expected, rtol=0, atol=1e-12)
    assert not plan[0, 11:].any()
    assert not plan[1].any()
    assert dropped[1] == 0


@pytest.mark.parametrize(("batch", "n", "m"), [(0, 5, 5), (2, 0, 5), (2, 5, 0)])
def test_empty_plan(ops: Any, batch: int, n: int, m: int) -> None:
    parts = ops.plan(torch.randn(batch, n, 3), torch.randn(batch, m, 3), None, None, 0.8, 1e-20, 20, 1e-8, True)
    assert [tuple(part.shape) for part in parts] == [
        (3, 0),
        (0,),
        (batch,),
        (batch, n),
        (batch, m),
        (batch, n),
        (batch, m),
    ]


def differentiated(
    ops: Any, x: Tensor, y: Tensor, at: Settings, x_n: Any = None, y_n: Any = None
) -> tuple[Tensor, ...]:
    uniform = at.ties == "uniform"
    return ops.match(x, y, x_n, y_n, at.p_min, at.threshold, at.iterations, at.eps, uniform, True, True)


def expected_of(x: Tensor, y: Tensor, at: Settings) -> tuple[Tensor, Tensor, Tensor]:
    a, b = x.double().requires_grad_(), y.double().requires_grad_()
    losses = dense.differentiable_loss(a, b, at)
    return losses.detach(), *torch.autograd.grad(losses.sum(), (a, b))


def assert_same(given: tuple[Tensor, ...], expected: tuple[Tensor, ...], tolerance: float) -> None:
    for one, other in zip(given[:3], expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=0, atol=tolerance * max(1e-3, other.abs().max().item()))


@pytest.mark.parametrize("iterations", [0, 1, 2, 20, 29])
def test_differentiated(ops: Any, iterations: int) -> None:
    at = Settings(threshold=1e-30, iterations=iterations)
    x, y = sphere(60, 2), sphere(50, 2, seed=1)
    assert_same(differentiated(ops, x, y, at), expected_of(x, y, at), 1e-9)
    x, y = x.float(), y.float()
    assert_same(differentiated(ops, x, y, at), expected_of(x, y, at), 1e-5)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 7), (7, 1), (2, 2), (2, 40)])
@pytest.mark.parametrize("p_min", [0.0, 0.8, 0.99])
def test_differentiated_small(ops: Any, n: int, m: int, p_min: float) -> None:
    at = Settings(threshold=1e-30, p_min=p_min)
    x, y = sphere(n), sphere(m, seed=1)
    assert_same(differentiated(ops, x, y, at), expected_of(x, y, at), 1e-9)


def test_differentiated_long_rows(ops: Any) -> None:
    at = Settings(threshold=1e-30)
    x, y = 0.05 * torch.randn(1, 150, 3, dtype=torch.float64), sphere(140)
    assert_same(differentiated(ops, x, y, at), expected_of(x, y, at), 1e-9)


def test_differentiated_with_lengths(ops: Any) -> None:
    at = Settings(threshold=1e-30)
    x, y = sphere(40, 2), sphere(50, 2, seed=1)
    x[0, 30:] = torch.nan
    given = differentiated(ops, x, y, at, torch.tensor([30, 40]), torch.tensor([50, 0]))
    expected = expected_of(x[:1, :30], y[:1], at)
    assert_same((given[0][:1], given[1][:1, :30], given[2][:1]), expected, 1e-9)
    assert not given[1][0, 30:].any()
    assert not given[1][1].any()
    assert not given[2][1].any()


def test_differentiated_with_uniform_ties(ops: Any) -> None:
    # Which of two equal gt points is a row's second nearest is open: only the sum of their gradients is defined.
    at = Settings(threshold=1e-30, ties="uniform")
    x, y = sphere(30), torch.cat((sphere(30, seed=1), sphere(30, seed=1)[:, :5]), dim=1)
    losses, x_grad, y_grad = expected_of(x, y, at)
    given = differentiated(ops, x, y, at)
    together = [torch.cat((grad[:, :5] + grad[:, 30:], grad[:, 5:30]), dim=1) for grad in (given[2], y_grad)]
    assert_same((given[0], given[1], together[0]), (losses, x_grad, together[1]), 1e-9)


def test_second_nearest_beyond_the_threshold(ops: Any) -> None:
    # A threshold so coarse that the support ends before the point the temperature depends on.
    at = Settings(threshold=0.1, p_min=0.9, iterations=0)
    x, y = sphere(40), sphere(40, seed=1)
    direction, step = torch.randn_like(x), 1e-7
    ahead, behind = (differentiated(ops, x + s * step * direction, y, at)[0].item() for s in (1, -1))
    slope = (differentiated(ops, x, y, at)[1] * direction).sum().item()
    assert slope == pytest.approx((ahead - behind) / (2 * step), rel=1e-5)


def test_too_many_iterations_to_differentiate(ops: Any) -> None:
    with pytest.raises(RuntimeError, match=r"cannot be differentiated through iterations=31.*must not exceed 240"):
        differentiated(ops, sphere(5), sphere(5), Settings(threshold=1e-20, iterations=31))
