"""Nearest neighbours both ways as one object, and the auction's short lists."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from apml_plugin.errors import LossValueError
from apml_plugin.functional import nearest_both_ways
from apml_plugin.matching.auction import Shortlists
from apml_plugin.matching.inputs import check_clouds
from apml_plugin.matching.nearest import ways


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
    assert nearest_both_ways(x[:, :0], y).idx_yx.tolist() == [[-1] * 6] * 3
    with pytest.raises(LossValueError, match="direction='left'"):
        ways(check_clouds(y, y), "left")


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
