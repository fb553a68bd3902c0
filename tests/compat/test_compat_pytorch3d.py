"""pytorch3d's functions, rebuilt, against loops in float64: values, gradients, padding, degenerate clouds."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from apml_plugin.compat import pytorch3d
from apml_plugin.compat.pytorch3d import chamfer_distance, knn_gather, knn_points


def clouds(kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(7)
    x, y = (torch.rand(2, n, 3, generator=g, dtype=torch.float64) for n in (13, 9))
    if kind == "plane":
        x[..., 2], y[..., 2] = 0.5, 0.5
    elif kind == "line":
        x[..., 1:], y[..., 1:] = 0, 0
    elif kind == "cube":  # corners, every query with ties
        y = torch.tensor(list(itertools.product((0.0, 1.0), repeat=3)), dtype=torch.float64).repeat(2, 1, 1)
        x[:, :4] = 0.5
    elif kind == "duplicates":
        x[:, 5:], y[:, 3:] = x[:, :1], x[:, :1]
    return x, y


KINDS = ["random", "plane", "line", "cube", "duplicates"]


def distance(a: torch.Tensor, b: torch.Tensor, norm: int) -> torch.Tensor:
    return (a - b).abs().sum() if norm == 1 else ((a - b) ** 2).sum()


def by_definition(x, y, of_x, of_y, nx, ny, weights, batch, point, norm, single, absolute):
    """The loss and the normals' loss, one point after another."""

    def way(n, a, b, of_a, of_b, na, nb):
        loss, normals = [], []
        for i in range(len(a[n])):
            if i >= of_a[n] or of_b[n] == 0:
                near = None
            else:
                near = min(range(of_b[n]), key=lambda j: distance(a[n, i], b[n, j], norm).item())
            w = 1 if weights is None else weights[n]
            loss.append(a.new_zeros(()) if near is None else w * distance(a[n, i], b[n, near], norm))
            if na is not None and i < of_a[n]:
                other = torch.zeros(3, dtype=a.dtype) if near is None else nb[n, near]
                cosine = torch.cosine_similarity(na[n, i], other, dim=0, eps=1e-6)
                normals.append(w * (1 - (cosine.abs() if absolute else cosine)))
            else:
                normals.append(a.new_zeros(()))
        out = []
        for terms in (torch.stack(loss), torch.stack(normals)):
            reduced = {"sum": terms.sum(), "mean": terms.sum() / max(1, of_a[n]), None: terms, "max": terms.max()}
            out.append(reduced[point])
        return out

    there = [way(n, x, y, of_x, of_y, nx, ny) for n in range(len(x))]
    back = [way(n, y, x, of_y, of_x, ny, nx) for n in range(len(x))]
    results = []
    for which in (0, 1):
        a, b = torch.stack([t[which] for t in there]), torch.stack([t[which] for t in back])
        join = {None: lambda p, q: (p, q), "max": torch.maximum}.get(point, lambda p, q: p + q)
        value = a if single else join(a, b)
        if batch is not None:
            share = len(x) if weights is None else weights.sum()
            value = value.sum() / (share if batch == "mean" else 1)
        results.append(value)
    return results[0], results[1] if nx is not None else None


REDUCTIONS = [(b, p) for b in ("mean", "sum", None) for p in ("mean", "sum", "max")] + [(None, None)]


@pytest.mark.parametrize(("batch", "point"), REDUCTIONS)
@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_chamfer_is_its_definition(batch, point, norm, kind):
    x, y = clouds(kind)
    g = torch.Generator().manual_seed(8)
    of_x, of_y = torch.tensor([13, 6]), torch.tensor([4, len(y[0])])
    x[1, 6:], y[0, 4:] = math.inf, math.nan  # padding may hold anything
    weights = torch.tensor([0.5, 2.0], dtype=torch.float64)
    for single, normed, weighted in itertools.product((False, True), repeat=3):
        if normed and point == "max":
            continue
        nx, ny = (torch.randn(c.shape, generator=g, dtype=torch.float64) if normed else None for c in (x, y))
        w, absolute = (weights if weighted else None), weighted
        leaves = [c.clone().requires_grad_() for c in (x, y, nx, ny) if c is not None]
        twins = [c.clone().requires_grad_() for c in (x, y, nx, ny) if c is not None]
        a, b = [(*t, None, None)[:4] for t in (leaves, twins)]
        got = chamfer_distance(a[0], a[1], of_x, of_y, a[2], a[3], w, batch, point, norm, single, absolute)
        lengths = of_x.tolist(), of_y.tolist()
        want = by_definition(b[0], b[1], *lengths, b[2], b[3], w, batch, point, norm, single, absolute)
        assert (got[1] is None) == (want[1] is None)
        flat = [torch.utils._pytree.tree_leaves(v) for v in (got, want)]
        flat = [[t for t in ts if t is not None] for ts in flat]
        for have, expected in zip(*flat, strict=True):
            torch.testing.assert_close(have, expected, rtol=1e-12, atol=1e-14)
        sum(t.square().sum() + t.sum() for t in flat[0]).backward()
        sum(t.square().sum() + t.sum() for t in flat[1]).backward()
        if kind in (
            "cube",
            "duplicates",
        ):  # of equal ones, any may get the gradient
            assert all(leaf.grad.isfinite().all() for leaf in leaves if leaf.grad is not None)
            continue
        for leaf, twin in zip(leaves, twins, strict=True):
            mine, theirs = (torch.zeros_like(c) if c.grad is None else c.grad.nan_to_num() for c in (leaf, twin))
            torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)
            assert leaf.grad is None or leaf.grad.isfinite().all()


def test_chamfer_s_second_derivative_and_float32():
    x, y = (c.float().requires_grad_() for c in clouds("random"))
    loss, none = chamfer_distance(x, y)
    assert none is None
    assert loss.dtype == torch.float32
    want = by_definition(x.double(), y.double(), [13] * 2, [9] * 2, None, None, None, "mean", "mean", 2, False, True)[0]
    assert loss.item() == pytest.approx(want.item(), rel=1e-6)
    a, b = (c.requires_grad_() for c in clouds("random"))
    assert torch.autograd.gradcheck(lambda p, q: chamfer_distance(p, q)[0], (a, b))
    assert torch.autograd.gradgradcheck(lambda p, q: chamfer_distance(p, q)[0], (a, b))


def test_chamfer_of_nothing():
    x, y = (c.requires_grad_() for c in clouds("random"))
    for batch in ("mean", "sum", None):
        loss, normals = chamfer_distance(x, y, weights=torch.zeros(2), batch_reduction=batch)
        assert loss.shape == ((2,) if batch is None else ())
        assert not loss.any()
        assert not normals.any()
        loss.sum().backward()
        assert not x.grad.any()
    empty = torch.zeros(2, dtype=torch.int64)
    loss, _ = chamfer_distance(x, y, empty, empty)
    assert loss.item() == 0
    loss, _ = chamfer_distance(x, y, x_lengths=empty)
    assert loss.item() == 0
    assert chamfer_distance(x[:0], y[:0])[0].item() == 0
    assert chamfer_distance(x[:, :0], y)[0].item() == 0


class Pointclouds:
    def __init__(self, points, lengths, normals=None):
        self._given = points, lengths, normals

    def points_padded(self):
        return self._given[0]

    def num_points_per_cloud(self):
        return self._given[1]

    def normals_padded(self):
        return self._given[2]


def test_objects_with_the_methods_of_pointclouds():
    x, y = clouds("random")
    of_x, of_y = torch.tensor([13, 6]), torch.tensor([4, 9])
    got = chamfer_distance(Pointclouds(x, of_x, x), Pointclouds(y, of_y, y))
    want = chamfer_distance(x, y, of_x, of_y, x, y)
    assert [g.item() for g in got] == [w.item() for w in want]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_reduction": "max"}, "batch_reduction must be .* got 'max'"),
        ({"point_reduction": "avg"}, "point_reduction must be .* got 'avg'"),
        ({"point_reduction": None}, "batch_reduction must be None"),
        ({"norm": 3}, "norm must be 1 or 2, got 3"),
        ({"point_reduction": "max", "x_normals": torch.rand(2, 13, 3)}, "normals must be None"),
        ({"x_lengths": torch.tensor([14, 1])}, r"x_lengths must be .* 13 points, got \[14, 1\]"),
        ({"y_lengths": torch.tensor([1])}, "y_lengths must be"),
        ({"weights": torch.tensor([1.0, -1.0])}, "weights must be .* not negative"),
        ({"weights": torch.ones(3)}, "weights must be"),
        ({"y": torch.rand(3, 9, 3)}, "do not fit each other"),
        ({"y": torch.rand(9, 3)}, r"y must be a tensor \(N, P, D\) or a Pointclouds, got \(9, 3\)"),
        ({"x": "cloud"}, "x must be .* got str"),
        ({"x_normals": torch.rand(2, 5, 3)}, "x_normals must be"),
    ],
)
def test_invalid_calls_raise_an_error(options, message):
    x, y = clouds("random")
    with pytest.raises(ValueError, match=message):
        chamfer_distance(**{"x": x, "y": y, **options})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize("k", [1, 3, 12])
def test_neighbours(kind, norm, k):
    p1, p2 = (c.requires_grad_() for c in clouds(kind))
    of_1, of_2 = torch.tensor([13, 6]), torch.tensor([2, len(p2[0])])
    found = knn_points(p1, p2, of_1, of_2, norm, k, return_nn=True)
    assert found.dists.shape == found.idx.shape == (2, 13, k)
    for n in range(2):
        for i in range(13):
            far = [distance(p1[n, i], p2[n, j], norm).item() for j in range(of_2[n])] if i < of_1[n] else []
            order = sorted(range(len(far)), key=lambda j: (far[j], j))[:k]
            pad = [0] * (k - len(order))
            assert found.idx[n, i].tolist() == order + pad
            assert found.dists[n, i].tolist() == pytest.approx([far[j] for j in order] + pad, rel=1e-12)
            assert torch.equal(found.knn[n, i, : len(order)], p2[n, order])
            assert not found.knn[n, i, len(order) :].any()
    nearest = knn_gather(p2, found.idx, of_2)
    assert not nearest[0, :, 2:].any()
    assert torch.equal(nearest[1, 0, 0], p2[1, found.idx[1, 0, 0]])
    if kind in ("random", "plane") and norm == 2:
        assert torch.autograd.gradcheck(lambda a, b: knn_points(a, b, of_1, of_2, K=k).dists, (p1, p2))


def test_balls():
    p1, p2 = (c.requires_grad_() for c in clouds("random"))
    of_1, of_2 = torch.tensor([13, 6]), torch.tensor([5, 9])
    found = pytorch3d.ball_query(p1, p2, of_1, of_2, K=3, radius=0.4)
    for n in range(2):
        for i in range(13):
            far = [distance(p1[n, i], p2[n, j], 2).item() for j in range(of_2[n])] if i < of_1[n] else []
            hits = [j for j, d in enumerate(far) if d < 0.16][:3]
            pad = 3 - len(hits)
            assert found.idx[n, i].tolist() == hits + [-1] * pad
            assert found.dists[n, i].tolist() == pytest.approx([far[j] for j in hits] + [0] * pad, rel=1e-12)
            assert torch.equal(found.knn[n, i, : len(hits)], p2[n, hits])
    assert pytorch3d.ball_query(p1, p2, K=3, return_nn=False).knn is None
    assert torch.autograd.gradcheck(lambda a, b: pytorch3d.ball_query(a, b, K=3, radius=0.4).dists, (p1, p2))


@pytest.mark.parametrize("kind", KINDS)
def test_furthest_points(kind):
    points = clouds(kind)[0].float().requires_grad_()
    lengths, k = torch.tensor([13, 6]), [5, 8]
    chosen, idx = pytorch3d.sample_farthest_points(points, lengths, k)
    for n in range(2):
        want, gap = [0], [math.inf] * int(lengths[n])
        while len(want) < min(k[n], int(lengths[n])):
            gap = [min(g, distance(points[n, j], points[n, want[-1]], 2).item()) for j, g in enumerate(gap)]
            want.append(gap.index(max(gap)))
        assert idx[n].tolist() == want + [-1] * (8 - len(want))
        assert torch.equal(chosen[n, : len(want)], points[n, want])
        assert not chosen[n, len(want) :].any()
    chosen.sum().backward()
    assert points.grad.isfinite().all()
    starts = {int(pytorch3d.sample_farthest_points(points, lengths, 1, True)[1][1, 0]) for _ in range(60)}
    assert len(starts) > 2
    assert max(starts) < 6


def test_normals_of_a_plane_and_a_sphere():
    g = torch.Generator().manual_seed(9)
    flat = torch.rand(1, 60, 3, generator=g, dtype=torch.float64)
    flat[..., 2] = 0.25 * flat[..., 0]
    normals = pytorch3d.estimate_pointcloud_normals(flat, neighborhood_size=12)
    want = torch.tensor([-0.25, 0, 1], dtype=torch.float64)
    cosine = (normals @ (want / want.norm())).abs()
    assert (cosine - 1).abs().max() < 1e-9
    ball = torch.nn.functional.normalize(torch.randn(1, 2000, 3, generator=g, dtype=torch.float64), dim=2)
    normals = pytorch3d.estimate_pointcloud_normals(ball, neighborhood_size=20)
    # Turned to where the neighbours lie, which is inwards.
    assert ((normals * ball).sum(dim=2) < -0.9).float().mean() > 0.99


def test_frames_are_eigenvectors_and_their_gradient_is_finite():
    g = torch.Generator().manual_seed(10)
    points = torch.rand(2, 12, 3, generator=g, dtype=torch.float64, requires_grad=True)
    values, frames = pytorch3d.estimate_pointcloud_local_coord_frames(points, 6)
    near = knn_points(points, points, K=6, return_nn=True).knn
    for n, i in ((0, 0), (1, 11)):
        covariance = torch.cov(near[n, i].T, correction=0)
        torch.testing.assert_close(covariance @ frames[n, i], frames[n, i] * values[n, i], rtol=1e-8, atol=1e-10)
        assert torch.linalg.det(frames[n, i]).item() == pytest.approx(-1)  # the second is first x last
        for column in (0, 2):
            side = (near[n, i] - points[n, i]) @ frames[n, i, :, column]
            assert (side > 0).sum() >= 3
    assert torch.autograd.gradcheck(lambda p: pytorch3d.estimate_pointcloud_local_coord_frames(p, 6), (points,))
    for kind in KINDS:
        cloud = clouds(kind)[0].requires_grad_()
        pytorch3d.estimate_pointcloud_normals(cloud, 6).sum().backward()
        assert cloud.grad.isfinite().all()
    with pytest.raises(ValueError, match="more than neighborhood_size = 50"):
        pytorch3d.estimate_pointcloud_normals(points)


def test_a_batch_of_the_usual_size_is_quick():
    import time

    x, y = torch.rand(2, 8192, 3), torch.rand(2, 8192, 3)
    start = time.perf_counter()
    chamfer_distance(x, y)
    assert time.perf_counter() - start < 5
