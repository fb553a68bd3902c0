"""The CUDA `match`, run on the CPU, against the dense definition, plain loops and the golden values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from clouds import helix, lattice, naive_apml, sphere
from torch import Tensor

from apml_plugin.matching import dense, sparse
from apml_plugin.matching.settings import Settings

EXACT = Settings(threshold=1e-30)
Result = tuple[Tensor, Tensor, Tensor, Tensor]


def match(ops: Any, x: Tensor, y: Tensor, at: Settings = EXACT, x_n: Any = None, y_n: Any = None) -> Result:
    lengths = [None if n is None else torch.tensor(n) for n in (x_n, y_n)]
    ties = at.ties == "uniform"
    return ops.match(x, y, *lengths, at.p_min, at.threshold, at.iterations, at.eps, ties, True, False)


def assert_close(given: Tensor, expected: Tensor, tolerance: float) -> None:
    """Each element, relative to the largest: gradients of a pair that matches exactly are all rounding."""
    assert given.shape == expected.shape
    torch.testing.assert_close(
        given.double(), expected, rtol=0, atol=tolerance * max(1e-3, expected.abs().max().item())
    )


def assert_parity(ops: Any, x: Tensor, y: Tensor, at: Settings = EXACT, tolerance: float | None = None) -> None:
    tolerance = tolerance or (1e-9 if x.dtype == torch.float64 else 1e-5)
    given = match(ops, x, y, at)
    for one, expected in zip(given, dense.solve(x.double(), y.double(), at), strict=False):
        assert_close(one, expected, tolerance)
    assert given[0].dtype == given[1].dtype == given[2].dtype == x.dtype


def blob(n: int, spread: float = 0.05) -> Tensor:
    return spread * torch.randn(1, n, 3, dtype=torch.float64)


def duplicated(n: int, copies: int) -> Tensor:
    cloud = sphere(n, seed=7)
    return torch.cat((cloud, cloud[:, :copies]), dim=1)


@pytest.mark.parametrize(
    ("pred", "gt", "value", "slope"),
    [
        (helix(64, 0.1), helix(64, 0.0), 6.4127292555, 81.38712759),
        (helix(40, 0.1, 0.9), helix(100, 0.0), 15.1365609291, 121.08619263),
        (helix(64, 0.1) + 1000, helix(64, 0.0) + 1000, 6.4127292555, 81.38712759),
        (helix(64, 0.0), helix(64, 0.0), 0.0494317234, None),
    ],
)
def test_golden_values(ops: Any, pred: Tensor, gt: Tensor, value: float, slope: float | None) -> None:
    losses, pred_grad, _, _ = match(ops, pred, gt)
    assert losses.item() == pytest.approx(value, rel=1e-9, abs=6e-11)
    if slope is not None:
        assert pred_grad.abs().sum().item() == pytest.approx(slope, rel=1e-9)


@pytest.mark.parametrize(("p_min", "value"), [(0.5, 6.4371137887), (0.99, 6.3980468075)])
def test_golden_values_at_other_probabilities(ops: Any, p_min: float, value: float) -> None:
    losses = match(ops, helix(64, 0.1), helix(64, 0.0), replace(EXACT, p_min=p_min))[0]
    assert losses.item() == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("ties", ["share", "uniform"])
def test_plain_loops(ops: Any, ties: str) -> None:
    for x, y in ((sphere(20), sphere(33, seed=1)), (lattice(3, 0.1), lattice(3, 0.1) + 0.05)):
        value, x_grad, y_grad, _ = naive_apml(x[0], y[0], ties=ties)
        losses, pred_grad, gt_grad, _ = match(ops, x, y, replace(EXACT, ties=ties))
        assert losses.item() == pytest.approx(value, rel=1e-9)
        assert_close(pred_grad[0], x_grad, 1e-9)
        assert_close(gt_grad[0], y_grad, 1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 33), (31, 1), (2, 2), (33, 1100), (1100, 1030)])
def test_sizes_around_clusters_and_blocks(ops: Any, n: int, m: int, dtype: torch.dtype) -> None:
    batch = 1 if n > 1000 else 3
    assert_parity(ops, sphere(n, batch).to(dtype), sphere(m, batch, seed=1).to(dtype))


def test_several_blocks_of_clusters(ops: Any) -> None:
    gt = sphere(2100).float()
    assert_parity(ops, (gt + 0.02 * torch.randn(1, 2100, 3))[:, :1500], gt)


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1e6])
def test_scales(ops: Any, scale: float) -> None:
    # The same picture in other units. Below 1e-8 the margin of the temperature would show: it is a length too.
    x, y = scale * sphere(400), scale * sphere(1100, seed=1)
    assert_parity(ops, x, y)
    assert_parity(ops, x.float(), y.float())


@pytest.mark.parametrize("dims", [1, 2])
def test_fewer_coordinates(ops: Any, dims: int) -> None:
    assert_parity(ops, torch.randn(2, 90, dims, dtype=torch.float64), torch.randn(2, 70, dims, dtype=torch.float64))


@pytest.mark.parametrize("ties", ["share", "uniform"])
@pytest.mark.parametrize(
    ("pred", "gt"),
    [
        (lattice(4, 0.1), lattice(4, 0.1) + 0.05),
        (lattice(5), lattice(5)),
        (sphere(90), duplicated(80, 30)),
        (duplicated(80, 30), duplicated(80, 30)),
    ],
)
def test_ties(ops: Any, pred: Tensor, gt: Tensor, ties: str) -> None:
    assert_parity(ops, pred, gt, replace(EXACT, ties=ties))
    assert_parity(ops, pred, gt, replace(EXACT, ties=ties, iterations=120))  # absorbs on the way


def test_many_uniform_rows_for_few_columns(ops: Any) -> None:
    # r grows by N / M = 50 an iteration and c shrinks by as much: only brought back to a level they stay in range.
    assert_parity(ops, sphere(150), duplicated(2, 1), replace(EXACT, ties="uniform", iterations=200))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_as_long_as_the_cloud(ops: Any, dtype: torch.dtype) -> None:
    assert_parity(ops, blob(500).to(dtype), sphere(500).to(dtype))


def test_an_outlier_far_away(ops: Any) -> None:
    pred = sphere(300)
    pred[0, 7] = 1e6
    assert_parity(ops, pred, sphere(300, seed=1))


@pytest.mark.parametrize("p_min", [0.0, 0.99])
def test_probabilities(ops: Any, p_min: float) -> None:
    assert_parity(ops, sphere(120), sphere(100, seed=1), replace(EXACT, p_min=p_min))
    assert_parity(ops, sphere(40), sphere(2, seed=1), replace(EXACT, p_min=p_min))  # an infinite radius at 0


@pytest.mark.parametrize("iterations", [0, 1, 200])
def test_iterations(ops: Any, iterations: int) -> None:
    # A blob's scalings reach 1e160 in 20 iterations: 200 are finite only when they are absorbed.
    assert_parity(ops, blob(150), sphere(150), replace(EXACT, iterations=iterations))
    assert_parity(ops, blob(150).float(), sphere(150).float(), replace(EXACT, iterations=iterations))


def test_a_tiny_eps(ops: Any) -> None:
    assert_parity(ops, sphere(100), sphere(120, seed=1), replace(EXACT, eps=1e-30))


@pytest.mark.parametrize("iterations", [20, 200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lengths_with_nan_in_the_padding(ops: Any, dtype: torch.dtype, iterations: int) -> None:
    at = replace(EXACT, iterations=iterations)
    x, y = sphere(70, 4).to(dtype), sphere(50, 4, seed=1).to(dtype)
    x_n, y_n = [70, 33, 0, 12], [1, 50, 20, 0]
    for cloud, lengths in ((x, x_n), (y, y_n)):
        for b, n in enumerate(lengths):
            cloud[b, n:] = torch.nan
    losses, pred_grad, gt_grad, dropped = match(ops, x, y, at, x_n, y_n)
    for b, (n, m) in enumerate(zip(x_n, y_n, strict=True)):
        expected = torch.zeros(1, 70, 3).double(), torch.zeros(1, 50, 3).double()
        loss = torch.zeros(1).double()
        if n and m:
            loss, x_grad, y_grad = dense.solve(x[b : b + 1, :n].double(), y[b : b + 1, :m].double(), at)
            expected[0][:, :n], expected[1][:, :m] = x_grad, y_grad
        assert_close(losses[b : b + 1], loss, 1e-5 if dtype == torch.float32 else 1e-9)
        assert_close(pred_grad[b : b + 1], expected[0], 1e-5)
        assert_close(gt_grad[b : b + 1], expected[1], 1e-5)
        assert dropped[b] == 0 or (n and m)


@pytest.mark.parametrize(("batch", "n", "m"), [(0, 5, 5), (2, 0, 5), (2, 5, 0), (2, 0, 0)])
def test_empty(ops: Any, batch: int, n: int, m: int) -> None:
    losses, pred_grad, gt_grad, dropped = match(ops, torch.randn(batch, n, 3), torch.randn(batch, m, 3))
    assert losses.shape == dropped.shape == (batch,)
    assert pred_grad.shape == (batch, n, 3)
    assert gt_grad.shape == (batch, m, 3)
    assert not losses.any()
    assert not pred_grad.any()
    assert not gt_grad.any()


@pytest.mark.parametrize("threshold", [1e-3, 1e-20])
@pytest.mark.parametrize("ties", ["share", "uniform"])
def test_dropped_is_the_sparse_backends_bound(ops: Any, threshold: float, ties: str) -> None:
    at = Settings(threshold=threshold, ties=ties)
    for x, y in ((sphere(100), duplicated(80, 20)), (blob(200), sphere(200)), (lattice(4), lattice(4))):
        assert match(ops, x, y, at)[3].item() == pytest.approx(sparse.pair_plan(x[0], y[0], at).dropped, rel=1e-6)
        loss, x_grad, y_grad = sparse.solve(x[0], y[0], at)
        given = match(ops, x, y, at)
        assert given[0].item() == pytest.approx(loss.item(), rel=1e-9)
        assert_close(given[1][0], x_grad, 1e-9)
        assert_close(given[2][0], y_grad, 1e-9)


def test_without_gradients(ops: Any) -> None:
    x, y = sphere(60, 2), sphere(50, 2, seed=1)
    losses, pred_grad, gt_grad, _ = ops.match(x, y, None, None, 0.8, 1e-30, 20, 1e-8, False, False, False)
    assert torch.equal(losses, match(ops, x, y)[0])
    assert pred_grad.shape == gt_grad.shape == (2, 0, 3)


@pytest.mark.parametrize("differentiate", [False, True])
@pytest.mark.parametrize("ties", ["share", "uniform"])
def test_order_of_threads_changes_no_bit(ops: Any, monkeypatch: Any, ties: str, differentiate: bool) -> None:
    x, y = sphere(200, 2).float(), torch.cat((sphere(150, 2, seed=1), sphere(150, 2, seed=1)[:, :20]), dim=1).float()
    runs = []
    for reverse in "01":
        monkeypatch.setenv("APML_EMULATED_REVERSE", reverse)
        runs.append(ops.match(x, y, None, None, 0.8, 1e-20, 20, 1e-8, ties == "uniform", True, differentiate))
    for one, other in zip(*runs, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("side", [0, 1])
def test_what_is_not_finite_ends_and_shows(ops: Any, bad: float, side: int) -> None:
    clouds = [sphere(70, 2), sphere(60, 2, seed=1)]
    clouds[side][0, 5, 1] = bad
    losses = match(ops, *clouds)[0]
    assert not losses[0].isfinite()
    assert losses[1].isfinite()


def test_all_nan_ends(ops: Any) -> None:
    nothing = torch.full((1, 100, 3), torch.nan)
    assert match(ops, nothing, nothing)[0].isnan().all()


def test_bad_shapes_are_named(ops: Any) -> None:
    with pytest.raises(RuntimeError, match="1, 2 or 3 coordinates"):
        match(ops, torch.randn(1, 4, 5), torch.randn(1, 4, 5))
    with pytest.raises(RuntimeError, match="lengths must be int64"):
        match(ops, torch.randn(1, 4, 3), torch.randn(1, 4, 3), EXACT, [1.5])
