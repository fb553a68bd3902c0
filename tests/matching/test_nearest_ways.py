"""Nearest neighbours both ways as one object, and the auction's short lists."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from apml_plugin.errors import LossValueError
from apml_plugin.functional import chamfer_distance, nearest_both_ways, nearest_neighbours
from apml_plugin.matching import extension
from apml_plugin.matching.auction import Shortlists
from apml_plugin.matching.inputs import check_clouds
from apml_plugin.matching.nearest import ways


@pytest.fixture(params=["compiled ops", "k-d tree"])
def search(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a test with the compiled ops, where there are any, and without them."""
    if request.param == "k-d tree":
        monkeypatch.setattr(extension, "missing", lambda device: "taken away by a test")
    elif extension.missing("cpu") is not None:
        pytest.skip("no compiled ops")


both_searches = pytest.mark.usefixtures("search")


@both_searches
def test_both_ways() -> None:
    x = torch.rand(2, 20, 3, dtype=torch.float64, requires_grad=True)
    y = torch.rand(2, 30, 3, dtype=torch.float64, requires_grad=True)
    found = nearest_both_ways(x, y)
    full = (x[:, :, None] - y[:, None]).square().sum(dim=-1)
    for dist, idx, axis in ((found.dist_xy, found.idx_xy, 2), (found.dist_yx, found.idx_yx, 1)):
        torch.testing.assert_close(dist, full.amin(dim=axis), rtol=1e-12, atol=1e-12)
        assert torch.equal(idx, full.argmin(dim=axis))
        for mine, theirs in zip(
            torch.autograd.grad(dist.sum(), (x, y), retain_graph=True),
            torch.autograd.grad(full.amin(dim=axis).sum(), (x, y), retain_graph=True),
            strict=True,
        ):
            torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


@both_searches
def test_padding_and_empty_sides() -> None:
    x, y = torch.rand(3, 5, 3), torch.rand(3, 6, 3)
    x[0, 2:] = torch.nan
    found = nearest_both_ways(x, y, pred_lengths=[2, 5, 0], gt_lengths=[6, 0, 6])
    assert found.idx_xy[0, 2:].tolist() == [-1] * 3
    assert not found.dist_xy[0, 2:].any()
    for dist, idx in ((found.dist_xy, found.idx_xy), (found.dist_yx, found.idx_yx)):
        assert bool((idx[1:] == -1).all())
        assert not dist[1:].any()
    assert found.xy.queries.tolist() == [2, 0, 0]
    assert found.xy.others.tolist() == [6, 0, 6]
    empty = nearest_both_ways(x[:, :0], y.requires_grad_())
    assert empty.idx_yx.tolist() == [[-1] * 6] * 3
    assert empty.dist_yx.tolist() == [[0.0] * 6] * 3
    assert empty.yx.mean(empty.dist_yx).tolist() == [0.0] * 3
    assert empty.xy.idx.shape == empty.xy.dist.shape == (3, 0)
    assert empty.xy.others.tolist() == [6] * 3
    assert empty.yx.queries.tolist() == empty.yx.others.tolist() == [0] * 3
    assert empty.yx.sharing().tolist() == [[1.0] * 6] * 3
    assert torch.autograd.grad(empty.dist_yx.sum(), y)[0].tolist() == torch.zeros(3, 6, 3).tolist()
    with pytest.raises(LossValueError, match="direction='left'"):
        ways(check_clouds(y, y), "left")


@both_searches
@pytest.mark.parametrize("direction", ["both", "pred_to_gt", "gt_to_pred"])
def test_a_padded_batch_is_its_pairs_alone(direction: str) -> None:
    n, m = [5, 3, 1, 0], [1, 7, 6, 4]
    x, y = torch.rand(4, 5, 3, dtype=torch.float64), torch.rand(4, 7, 3, dtype=torch.float64)
    x[1, 3:], y[0, 1:] = torch.nan, torch.inf
    found = ways(check_clouds(x, y, n, m), direction)
    for b in range(4):
        alone = ways(check_clouds(x[b : b + 1, : n[b]], y[b : b + 1, : m[b]]), direction)
        for way, one in zip(found, alone, strict=True):
            size = one.dist.shape[1]
            torch.testing.assert_close(way.dist[b, :size], one.dist[0], rtol=1e-12, atol=0)
            assert torch.equal(way.idx[b, :size], one.idx[0])
            assert not way.dist[b, size:].any()
            assert (way.idx[b, size:] == -1).all()
            ones = torch.ones_like(way.dist)  # what padding holds must not be added
            assert way.sum(ones)[b] == one.sum(torch.ones_like(one.dist))[0]


@both_searches
@pytest.mark.parametrize("dtypes", [(torch.float16, torch.float64), (torch.float32, torch.float16)], ids=str)
def test_clouds_of_different_dtypes(dtypes: tuple[torch.dtype, torch.dtype]) -> None:
    x, y = torch.randn(2, 9, 3).to(dtypes[0]).requires_grad_(), torch.randn(2, 8, 3).to(dtypes[1]).requires_grad_()
    wide = torch.float64 if torch.float64 in dtypes else torch.float32
    for function in (chamfer_distance, lambda a, b: nearest_both_ways(a, b).dist_xy.sum()):
        value = function(x, y)
        assert value.dtype == wide
        torch.testing.assert_close(value, function(x.to(wide), y.to(wide)), rtol=1e-6, atol=0)
        grads = torch.autograd.grad(value, (x, y))
        assert (grads[0].dtype, grads[1].dtype) == dtypes


@both_searches
@pytest.mark.parametrize("n", [0, 1, 30])
@pytest.mark.parametrize("d", [1, 3, 4])
def test_nearest_neighbours_of_any_number_of_queries(n: int, d: int) -> None:
    queries, points = torch.randn(n, d), torch.randn(7, d)
    distance, index = nearest_neighbours(queries.requires_grad_(), points)
    full = (queries[:, None] - points).norm(dim=-1)
    assert index.tolist() == full.argmin(dim=1).tolist()
    torch.testing.assert_close(distance, full.amin(dim=1))
    assert distance.requires_grad
    for clouds, name in (((queries + torch.nan, points), "queries"), ((queries, points / 0), "points")):
        if n or name == "points":
            with pytest.raises(LossValueError, match=f"{name} holds NaN or Inf: there is no nearest point"):
                nearest_neighbours(*clouds)


def test_how_many_share_a_neighbour() -> None:
    x = torch.tensor([[[0.0, 0], [0.1, 0], [5, 0], [9, 9]]])
    y = torch.tensor([[[0.0, 0], [5, 1], [7, 7]]])
    way = nearest_both_ways(x, y, pred_lengths=[3]).xy
    assert way.sharing()[0, :3].tolist() == [2, 2, 1]
    assert way.mean(way.distance()).item() == pytest.approx(1.1 / 3)
    assert way.sum(way.dist).item() == pytest.approx(1.01)


@given(n=st.integers(1, 20), m=st.integers(1, 900), dimensions=st.integers(1, 4), seed=st.integers(0, 10_000))
def test_short_lists_find_the_two_cheapest_while_prices_rise(n: int, m: int, dimensions: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    x, y = random.random((n, dimensions)), random.random((m, dimensions))
    y[: m // 3] = y[0]  # copies
    distance = np.linalg.norm(x[:, None] - y[None], axis=-1)
    lists = Shortlists(x, y)
    for step in range(6):
        rows = np.flatnonzero(random.random(n) < 0.7)
        index, apart, first, second = lists.nearest(rows)
        values = distance[rows] + lists.price[:m]
        two = np.sort(np.pad(values, ((0, 0), (0, 1)), constant_values=np.inf), axis=1)[:, :2]
        np.testing.assert_allclose(np.stack((first, second), axis=1), two, rtol=1e-12)
        np.testing.assert_allclose(values[np.arange(len(rows)), index], first, rtol=1e-12)
        np.testing.assert_allclose(apart, distance[rows, index], rtol=1e-12)
        lists.price[:m] += random.random(m) * (random.random(m) < 0.5) * 10.0 ** -random.integers(0, 4)
        if step == 3:
            lists.free()
            assert lists.total_price() == 0
