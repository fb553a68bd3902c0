"""Nearest, furthest and near points against plain sorting, with ties, copies and blocks of every size."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from apml_plugin.matching import exact
from apml_plugin.matching.search import squared_distance

KINDS = ("random", "grid", "copies", "collapsed")


def cloud(kind: str, n: int, d: int, generator: torch.Generator) -> Tensor:
    x = torch.rand(1, n, d, generator=generator)
    if kind == "grid":
        x = (x * 4).round() - 2.0  # -0.0 and 0.0 are one place
    if kind == "copies":
        x = x[:, torch.randint(0, 1 + n // 3, (n,), generator=generator)]
    return 0.5 + 1e-7 * x if kind == "collapsed" else x


@given(
    kind=st.sampled_from(KINDS),
    n=st.sampled_from([1, 70, 130]),
    m=st.sampled_from([5, 64, 150]),
    k=st.integers(1, 5),
    d=st.sampled_from([1, 3, 9]),
    seed=st.integers(0, 1000),
)
def test_nearest_is_a_stable_sort(kind: str, n: int, m: int, k: int, d: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, y = cloud(kind, n, d, generator), cloud(kind, m, d, generator)
    distance, index = exact.nearest(x, y, k)
    best, order = squared_distance(x[0, :, None], y[0]).sort(dim=-1, stable=True)
    assert torch.equal(distance[0], best[:, :k])
    assert torch.equal(index[0], order[:, :k])


def test_the_tree_the_blocks_and_the_rows_that_may_be_tied(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = (cloud("grid", n, 3, torch.Generator().manual_seed(n)) for n in (150, 200))
    whole = [exact.nearest(x, y, k) for k in (1, 4)]
    for name, value in (("BLOCK_ENTRIES", 600), ("SPARE", 0), ("SMALL", 10**9)):
        monkeypatch.setattr(exact, name, value)
        for k, (distance, index) in zip((1, 4), whole, strict=True):
            found = exact.nearest(x, y, k)
            assert torch.equal(found[0], distance)
            assert torch.equal(found[1], index)


def test_another_distance_and_nan() -> None:
    x, y = torch.randn(2, 80, 3), torch.randn(2, 90, 3)
    distance, index = exact.nearest(x, y, 2, lambda a, b: (a - b).abs().amax(dim=-1))
    best, order = (x[:, :, None] - y[:, None]).abs().amax(dim=-1).sort(dim=-1, stable=True)
    assert torch.equal(distance, best[..., :2])
    assert torch.equal(index, order[..., :2])
    x[1, 3, 0] = torch.nan
    nan = exact.nearest(x, y)[0].isnan()
    assert nan[1, 3].all()
    assert nan.sum() == 1


def test_distances_that_overflow_are_infinite() -> None:
    x, y = 1e200 * torch.randn(1, 80, 3, dtype=torch.float64), torch.randn(1, 90, 3, dtype=torch.float64)
    for queries, points in ((x, y), (y, x)):
        distance, index = exact.nearest(queries, points)
        assert (distance == torch.inf).all()
        assert not index.any()


@pytest.mark.parametrize(
    ("queries", "points", "k", "message"),
    [
        ((2, 5, 3), (2, 5, 2), 1, r"nearest: expected clouds .* got \(2, 5, 3\) and \(2, 5, 2\)"),
        ((2, 5, 3), (3, 5, 3), 1, r"got \(2, 5, 3\) and \(3, 5, 3\)"),
        ((5, 3), (1, 5, 3), 1, r"got \(5, 3\) and"),
        ((1, 5, 3), (5, 3), 1, r"and \(5, 3\)"),
        ((1, 5, 3), (1, 4, 3), 5, r"nearest: .* no points for k = 5: it has 4"),
        ((1, 5, 3), (1, 4, 3), 0, r"k = 0: it has 4"),
    ],
)
def test_shapes_that_cannot_be_searched(
    queries: tuple[int, ...], points: tuple[int, ...], k: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        exact.nearest(torch.rand(queries), torch.rand(points), k)


def test_furthest_takes_the_lowest_of_the_furthest() -> None:
    xyz = torch.stack((cloud("grid", 40, 3, torch.Generator().manual_seed(1))[0], torch.rand(40, 3)))
    for start in (0, torch.tensor([3, 11])):
        gap = torch.full((2, 40), exact.FAR)
        gap[1, 30:] = -1  # no points
        found = exact.furthest(xyz, 12, gap, start)
        for b in range(2):
            far = torch.full((40,), exact.FAR)
            far[30:] = far[30:] if b == 0 else -1
            expected = [int(torch.as_tensor(start).expand(2)[b])]
            for _ in range(11):
                far = torch.minimum(far, (xyz[b] - xyz[b, expected[-1]]).square().sum(dim=-1))
                expected.append(int(far.argmax()))
            assert found[b].tolist() == expected
            torch.testing.assert_close(gap[b], far)
    assert exact.furthest(xyz[:, :0], 0, torch.empty(2, 0)).shape == (2, 0)
    with pytest.raises(ValueError, match=r"xyz has no points, shape \(2, 0, 3\)"):
        exact.furthest(xyz[:, :0], 1, torch.empty(2, 0))


@pytest.mark.parametrize("entries", [1, 120, 1 << 22])
def test_within_gives_the_first_hits_in_order(entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "BLOCK_ENTRIES", entries)
    points = cloud("grid", 60, 3, torch.Generator().manual_seed(0)).repeat(2, 1, 1)
    points[1] += 0.25
    queries = torch.cat((points[:, :10], points[:, :1] + 50), dim=1)
    for least, fill in ((0.0, None), (0.0, -1), (1.0, None)):
        found = exact.within(2.0, 5, points, queries, least, fill)
        for b in range(2):
            for i, query in enumerate(queries[b]):
                far = [float((query - point).square().sum()) for point in points[b]]
                hits = [j for j, d in enumerate(far) if d < 4.0 and (d >= least**2 or d == 0)][:5]
                rest = (hits[0] if hits else 0) if fill is None else fill
                assert found[b, i].tolist() == hits + [rest] * (5 - len(hits))
    few = exact.within(2.0, 5, points[:, :2], queries[:, :1], fill=-1)
    assert few.shape == (2, 1, 5)
    assert exact.within(2.0, 3, points[:, :0], queries).tolist() == [[[0] * 3] * 11] * 2
