"""EMD against SciPy on a full matrix, and the auction against its promises."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from clouds import lattice, sphere
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from apml_plugin import earth_movers_distance
from apml_plugin.errors import LossArgumentError, LossValueError
from apml_plugin.losses import EMD, ApproximateEMD
from apml_plugin.matching.assignment import assign_pairs
from apml_plugin.matching.auction import FINEST, auction
from apml_plugin.matching.inputs import check_clouds
from apml_plugin.registry import build_loss

BOTH = [EMD(), ApproximateEMD()]
BOTH_KINDS = pytest.mark.parametrize("kind", [EMD, ApproximateEMD])


def exact(x: Tensor, y: Tensor) -> float:
    """Mean distance of the best assignment of (N, D) and (M, D), by SciPy on a matrix made here."""
    cost = np.linalg.norm(x.numpy()[:, None] - y.numpy()[None], axis=-1)
    rows, columns = linear_sum_assignment(cost)
    return math.fsum(cost[rows, columns]) / len(rows)


def drawn(kind: int, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Clouds (n, 3) that are hard to match in different ways."""
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.rand(2, n, 3, dtype=torch.float64, generator=generator)
    return [
        (x, y),
        (0.01 * x, y),  # everyone wants the same few
        (x[torch.randint(0, max(1, n // 8), (n,), generator=generator)], y),  # copies
        ((5 * x).floor(), (5 * y).floor()),  # ties and coincident points
        (x, x[torch.randperm(n, generator=generator)] + 1e-3 * y),  # nearly the same
        (x + torch.tensor([1000.0, 0, 0]), y),  # far from one another
        (x * torch.tensor([1.0, 0, 0]), y * torch.tensor([1.0, 0, 0])),  # on a line: many optima
    ][kind % 7]


def test_golden_value_and_permutations() -> None:
    i = torch.arange(64, dtype=torch.float64)
    x = torch.stack((torch.sin(0.7 * i), torch.cos(1.19 * i), torch.sin(0.21 * i + 1)), dim=-1)
    y = torch.stack((0.1 + torch.sin(0.71 * i), torch.cos(1.207 * i), torch.sin(0.213 * i + 1)), dim=-1)
    assert EMD()(x[None], y[None]).item() == pytest.approx(0.2678885532788453, abs=1e-9)
    assert EMD()(x[None], y[None]).item() == pytest.approx(exact(x, y), rel=1e-12)
    # The definition itself, where all permutations can be tried.
    a, b = x[:6], y[:6]
    least = min((a - b[list(p)]).norm(dim=-1).mean().item() for p in itertools.permutations(range(6)))
    assert EMD()(a[None], b[None]).item() == pytest.approx(least, rel=1e-12)


@given(n=st.integers(1, 40), kind=st.integers(0, 6), seed=st.integers(0, 10_000))
def test_exact_equals_scipy(n: int, kind: int, seed: int) -> None:
    x, y = drawn(kind, n, seed)
    assert EMD()(x[None], y[None]).item() == pytest.approx(exact(x, y), rel=1e-12, abs=1e-14)
    assert EMD(reduction="sum")(x[None], y[None]).item() == pytest.approx(n * exact(x, y), rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("seed", range(100))
def test_the_auction_holds_its_bound(seed: int) -> None:
    n = 1 + (seed * 37) % 150
    x, y = drawn(seed, n, seed)
    tolerance = (0.1, 0.01, 0.001)[seed % 3]
    value, bound = earth_movers_distance(x[None], y[None], tolerance=tolerance, return_bound=True)
    best, rounding = exact(x, y), 1e-12 * (1 + value.item())
    extent = (torch.cat((x, y)).amax(0) - torch.cat((x, y)).amin(0)).max().item()
    assert bound.item() - rounding <= best <= value.item() + rounding
    assert value.item() <= max((1 + tolerance) * bound.item(), bound.item() + FINEST * extent) + rounding
    matched = assign_pairs(check_clouds(x[None], y[None]), tolerance, "raise")[0]
    assert torch.equal(matched.columns.sort().values, matched.rows)  # a bijection
    assert torch.equal(matched.rows, torch.arange(n))


@pytest.mark.parametrize(
    ("n", "m", "kind"), [(700, 700, 0), (350, 350, 1), (600, 600, 2), (500, 700, 0), (200, 400, 1)]
)
def test_the_auction_where_lists_are_short(n: int, m: int, kind: int) -> None:
    """Above 256 points a list no longer holds all of them."""
    x, y = drawn(kind, m, 3)
    x = x[:n]
    columns, bound = auction(x.numpy(), y.numpy(), 0.02)
    mean = (x - y[columns]).norm(dim=-1).mean().item()
    assert len(set(columns.tolist())) == n
    assert bound - 1e-12 <= exact(x, y) <= mean + 1e-12
    assert mean <= 1.02 * bound
    again = auction(x.numpy(), y.numpy(), 0.02)
    assert np.array_equal(again[0], columns)
    assert again[1] == bound


@given(n=st.integers(1, 30), m=st.integers(1, 30), seed=st.integers(0, 10_000))
def test_unequal_numbers(n: int, m: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(1, n, 3, dtype=torch.float64, generator=generator)
    y = torch.rand(1, m, 3, dtype=torch.float64, generator=generator)
    best = exact(x[0], y[0])
    assert EMD(unequal="smaller")(x, y).item() == pytest.approx(best, rel=1e-12)
    value, bound = earth_movers_distance(x, y, tolerance=0.01, unequal="smaller", return_bound=True)
    assert bound.item() - 1e-12 <= best <= value.item() + 1e-12 <= 1.01 * bound.item() + 3e-6
    if n != m:
        with pytest.raises(LossValueError, match=rf"pred\[0\] has {n} points and gt\[0\] {m}.*unequal='smaller'"):
            EMD()(x, y)


@BOTH_KINDS
def test_the_larger_clouds_surplus_has_gradient_zero(kind: type) -> None:
    x = torch.rand(1, 5, 3, dtype=torch.float64, requires_grad=True)
    y = torch.cat((x.detach() + 0.01, x.detach() + 50), dim=1).requires_grad_()
    kind(unequal="smaller")(x, y).backward()
    torch.testing.assert_close(x.grad, torch.full_like(x, -(3**-0.5) / 5))
    torch.testing.assert_close(y.grad[:, :5], -x.grad)
    assert not y.grad[:, 5:].any()


@BOTH_KINDS
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradcheck_permutation_and_both_gradients(kind: type, reduction: str) -> None:
    loss = kind(reduction=reduction)
    x = torch.rand(2, 6, 3, dtype=torch.float64, requires_grad=True)
    y = torch.rand(2, 6, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(EMD(reduction=reduction), (x, y))
    # The auction's assignment may change within its tolerance; held, it is what SciPy's is.
    grads = torch.autograd.grad(loss(x, y).sum(), (x, y))
    assert all(grad.any() for grad in grads)
    torch.testing.assert_close(grads[0].sum(dim=1), -grads[1].sum(dim=1))  # a shift of both moves nothing
    order = torch.randperm(6)
    torch.testing.assert_close(EMD(reduction=reduction)(x[:, order], y), EMD(reduction=reduction)(x, y))
    assert loss(x[:, order], y).sum() <= 1.0101 * EMD(reduction=reduction)(x, y).sum()


@pytest.mark.parametrize("loss", BOTH, ids=["exact", "auction"])
def test_padding_changes_nothing_and_empty_pairs_give_nothing(loss: torch.nn.Module) -> None:
    x = torch.rand(3, 9, 3, dtype=torch.float64)
    y = torch.rand(3, 12, 3, dtype=torch.float64)
    x[1, 4:], y[1, 4:] = torch.nan, 1e300
    x.requires_grad_()
    y.requires_grad_()
    value = loss(x, y, [9, 4, 0], [9, 4, 12])
    value.backward()
    parts = [loss(x[:1], y[:1, :9]), loss(x[1:2, :4], y[1:2, :4])]
    torch.testing.assert_close(value, sum(parts) / 3, rtol=1e-12, atol=1e-12)
    for cloud in (x, y):
        assert torch.isfinite(cloud.grad).all()
        assert not cloud.grad[1, 4:].any()
        assert not cloud.grad[2].any()
    nothing = loss(x[:, :0], y)
    nothing.backward()
    assert nothing.item() == 0
    assert loss(torch.rand(0, 5, 3), torch.rand(0, 6, 3)).item() == 0


@pytest.mark.parametrize("loss", BOTH, ids=["exact", "auction"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_coincident_points(loss: torch.nn.Module, dtype: torch.dtype) -> None:
    for points in (sphere(30), lattice(3), torch.zeros(1, 9, 3), torch.ones(1, 1, 3)):
        x = points.clone().to(dtype).requires_grad_()
        y = x.detach()[:, torch.randperm(points.shape[1])].requires_grad_()
        value = loss(x, y)
        value.backward()
        assert value.item() == 0
        assert value.dtype == torch.promote_types(dtype, torch.float32)
        for cloud in (x, y):
            assert not cloud.grad.any()


def test_any_size_and_place() -> None:
    x, y = drawn(0, 50, 0)
    for scale, shift in ((1e-100, 0.0), (1e100, 0.0), (1.0, 1e6)):
        a, b = (scale * cloud[None] + shift for cloud in (x, y))
        best, value = EMD()(a, b).item(), ApproximateEMD()(a, b).item()
        assert best == pytest.approx(scale * exact(x, y), rel=1e-8)
        assert best <= value <= 1.01 * best
    huge = torch.full((1, 2, 3), 1.7e308, dtype=torch.float64)
    with pytest.raises(LossValueError, match="scale them down"):
        EMD()(huge, -huge)


@pytest.mark.parametrize("loss", BOTH, ids=["exact", "auction"])
def test_unusable_clouds_raise_an_error(loss: torch.nn.Module) -> None:
    x = torch.rand(1, 5, 3)
    for bad, error in ((x / 0, LossValueError), (x * torch.nan, LossValueError), (x.int(), LossArgumentError)):
        with pytest.raises(error):
            loss(bad, x)


@pytest.mark.parametrize(
    ("cfg", "error", "message"),
    [
        ({"NAME": "ApproximateEMD", "tolerance": 0}, LossValueError, "tolerance=0 must be positive"),
        ({"NAME": "ApproximateEMD", "tolerance": "fine"}, LossArgumentError, "tolerance='fine'"),
        ({"NAME": "EMD", "unequal": "larger"}, LossValueError, "unequal='larger'"),
        ({"NAME": "EMD", "tolerance": 0.1}, LossArgumentError, "EMD takes no argument 'tolerance'"),
        ({"NAME": "EMD", "reduction": "max"}, LossValueError, "reduction='max'"),
    ],
)
def test_invalid_arguments_raise_an_error(cfg: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build_loss(cfg)
