"""pointnet2_cuda, pointnet2_ops._ext, pointops_cuda, fps_cuda, knn_cuda and mm3d_pn2, called as hosts call them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apml_plugin.errors import LossValueError
from apml_plugin.standins import neighbours
from apml_plugin.standins import pointnet2_ops as ops
from apml_plugin.standins.pointnet2_ops import _ext


def rand(*shape: int, seed: int = 3) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def furthest(cloud: torch.Tensor, count: int, start: int = 0) -> list[int]:
    chosen, gap = [start], torch.full((len(cloud),), 1e10, dtype=torch.float64)
    while len(chosen) < count:
        gap = torch.minimum(gap, ((cloud - cloud[chosen[-1]]) ** 2).sum(dim=1))
        chosen.append(gap.tolist().index(gap.max().item()))
    return chosen


def cloud(kind: str) -> torch.Tensor:
    points = rand(2, 30, 3)
    if kind == "line":
        points[..., 1:] = 0
    elif kind == "duplicates":
        points[:, 4:] = points[:, :1]
    elif kind == "origin":
        points[:, 10:] = 0
    return points


@pytest.mark.parametrize("kind", ["random", "line", "duplicates", "origin"])
def test_furthest_points_by_every_name(kind):
    points = cloud(kind)
    want = [furthest(c, 9) for c in points]
    temp, index = torch.full((2, 30), 1e10, dtype=torch.float64), torch.empty(2, 9, dtype=torch.int32)
    assert neighbours.furthest_point_sampling_wrapper(2, 30, 9, points, temp, index) == 1
    assert index.tolist() == want
    gap, long = torch.full((2, 30), 1e10, dtype=torch.float64), torch.zeros(2, 9, dtype=torch.int64)
    neighbours.fps(points, gap, long)
    assert long.tolist() == want
    assert torch.equal(gap, temp)
    assert neighbours.farthest_point_sample(points.transpose(1, 2), 9).tolist() == want
    neighbours.farthest_point_sampling(points, long.zero_(), 9, torch.empty(0, dtype=torch.int32))
    assert long.tolist() == want
    neighbours.farthest_point_sampling(points, long, 9, torch.tensor([3, 5]))
    assert long.tolist() == [furthest(points[0], 9, 3), furthest(points[1], 9, 5)]
    assert neighbours.furthest_point_sample(points, 9).tolist() == want
    ends, new_ends = torch.tensor([30, 60]).int(), torch.tensor([9, 18]).int()
    flat = torch.empty(18, dtype=torch.int32)
    neighbours.furthestsampling_cuda(2, 30, points.view(60, 3), ends, new_ends, temp.view(60), flat)
    assert flat.tolist() == want[0] + [30 + i for i in want[1]]


def test_clouds_of_unequal_sizes_one_behind_the_other():
    points, queries = rand(5 + 12 + 2, 3), rand(3 + 4 + 2, 3, seed=4)
    ends, new_ends = torch.tensor([5, 17, 19]).int(), torch.tensor([3, 7, 9]).int()
    chosen = torch.empty(9, dtype=torch.int32)
    neighbours.furthestsampling_cuda(3, 12, points, ends, new_ends, torch.empty(19), chosen)
    want = furthest(points[:5], 3) + [5 + i for i in furthest(points[5:17], 4)] + [17, 18]
    assert chosen.tolist() == want
    idx, far = torch.zeros(9, 4, dtype=torch.int32), torch.zeros(9, 4, dtype=torch.float64)
    neighbours.knnquery_cuda(9, 4, points, queries, ends, new_ends, idx, far)
    for i, (start, end) in enumerate([(0, 5)] * 3 + [(5, 17)] * 4 + [(17, 19)] * 2):
        squares = ((points[start:end] - queries[i]) ** 2).sum(dim=1).tolist()
        order = sorted(range(end - start), key=squares.__getitem__)[:4]
        assert idx[i].tolist() == [start + j for j in order] + [start] * (4 - len(order))
        assert far[i].tolist() == pytest.approx([squares[j] for j in order] + [1e10] * (4 - len(order)))


class Wrapped(torch.autograd.Function):
    """What hosts make of the three pairs of pointnet2_cuda: zeros, a call, zeros, a call."""

    @staticmethod
    def forward(ctx, features, idx, weight):
        b, c, n = features.shape
        ctx.rest = idx, weight, n
        out = features.new_empty(b, c, *idx.shape[1 : 2 + (weight is None and idx.dim() == 3)])
        if weight is not None:
            neighbours.three_interpolate_wrapper(b, c, n, idx.shape[1], features, idx, weight, out)
        elif idx.dim() == 3:
            neighbours.group_points_wrapper(b, c, n, *idx.shape[1:], features, idx, out)
        else:
            neighbours.gather_points_wrapper(b, c, n, idx.shape[1], features, idx, out)
        return out

    @staticmethod
    def backward(ctx, grad):
        idx, weight, n = ctx.rest
        b, c = grad.shape[:2]
        result = grad.new_zeros(b, c, n)
        if weight is not None:
            neighbours.three_interpolate_grad_wrapper(b, c, idx.shape[1], n, grad, idx, weight, result)
        elif idx.dim() == 3:
            neighbours.group_points_grad_wrapper(b, c, n, *idx.shape[1:], grad, idx, result)
        else:
            neighbours.gather_points_grad_wrapper(b, c, n, idx.shape[1], grad, idx, result)
        return result, None, None


def test_columns_and_their_gradients():
    g = torch.Generator().manual_seed(5)
    features = rand(2, 4, 9).requires_grad_()
    for shape, weight in (((2, 5), None), ((2, 5, 3), None), ((2, 6, 3), rand(2, 6, 3, seed=6))):
        idx = torch.randint(0, 9, shape, generator=g).int()
        got = Wrapped.apply(features, idx, weight)
        chosen = torch.stack([f[:, i.long()] for f, i in zip(features, idx, strict=True)])
        want = chosen if weight is None else (chosen * weight[:, None]).sum(dim=3)
        torch.testing.assert_close(got, want, rtol=1e-12, atol=0)
        assert torch.autograd.gradcheck(lambda f, i=idx, w=weight: Wrapped.apply(f, i, w), (features,))


def test_nearest_and_balls():
    unknown, known = rand(2, 8, 3), rand(2, 5, 3, seed=9)
    far, idx = torch.empty(2, 8, 3, dtype=torch.float64), torch.empty(2, 8, 3, dtype=torch.int32)
    neighbours.three_nn_wrapper(2, 8, 5, unknown, known, far, idx)
    squares = ((unknown[:, :, None] - known[:, None]) ** 2).sum(dim=3)
    want = squares.sort(dim=2, stable=True)
    torch.testing.assert_close(far, want.values[..., :3])
    assert torch.equal(idx.long(), want.indices[..., :3])
    root, index = ops.knn_query(7, known, unknown)  # more than there are
    torch.testing.assert_close(root[..., :5], want.values.sqrt())
    assert root[..., 5:].isinf().all()
    assert not index[..., 5:].any()
    assert torch.equal(_ext.knn_query(known, unknown, 3)[1], idx)
    assert neighbours.knn(3, known, unknown).tolist() == idx.transpose(1, 2).tolist()
    assert torch.equal(neighbours.knn(2, known.transpose(1, 2), None, True)[:, 0], torch.arange(5).int().expand(2, 5))
    group = ops.QueryAndGroup(None, 3)(known, unknown)
    torch.testing.assert_close(group.square().sum(dim=1), want.values[..., :3])
    balls = torch.zeros(2, 8, 4, dtype=torch.int32)
    neighbours.ball_query_wrapper(2, 5, 8, 0.5, 4, unknown, known, balls)
    assert torch.equal(balls, ops.ball_query(0.5, 4, known, unknown))
    rings = neighbours.ball_query(0.3, 0.6, 4, known, torch.cat([unknown, known[:, :1]], dim=1))
    for b in range(2):
        for i, centre in enumerate([*unknown[b], known[b, 0]]):
            d = ((known[b] - centre) ** 2).sum(dim=1).tolist()
            hits = [j for j in range(5) if d[j] == 0 or 0.09 <= d[j] < 0.36][:4]
            assert rings[b, i].tolist() == hits + [hits[0] if hits else 0] * (4 - len(hits))


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 9),
    queries=st.integers(0, 5),
    d=st.integers(1, 4),
    batch=st.integers(1, 3),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_nearest_references(n, queries, d, batch, seed, data):
    k = data.draw(st.integers(1, n))
    generator = torch.Generator().manual_seed(seed)
    # Whole numbers, so that many are equally far: the lower index comes first.
    ref = torch.randint(3, (batch, n, d), generator=generator).double()
    query = torch.randint(3, (batch, queries, d), generator=generator).double()
    distance, index = neighbours.KNN(k, transpose_mode=True)(ref, query)
    assert index.dtype == torch.int64
    assert distance.shape == index.shape == (batch, queries, k)
    for b in range(batch):
        for i in range(queries):
            far = [(ref[b, j] - query[b, i]).norm().item() for j in range(n)]
            order = sorted(range(n), key=lambda j: (far[j], j))[:k]
            assert index[b, i].tolist() == order
            assert distance[b, i].tolist() == pytest.approx([far[j] for j in order], rel=1e-12)
    flipped, where = neighbours.KNN(k=k)(ref.transpose(1, 2), query.transpose(1, 2))
    assert torch.equal(flipped, distance.transpose(1, 2))
    assert torch.equal(where, index.transpose(1, 2))
    assert flipped.is_contiguous()


def test_too_few_references():
    with pytest.raises(LossValueError, match="ref has 3 points, fewer than k = 4"):
        neighbours.KNN(4, True)(torch.rand(1, 3, 3), torch.rand(1, 2, 3))
    with pytest.raises(LossValueError, match="do not fit"):
        neighbours.KNN(1, True)(torch.rand(1, 3, 3), torch.rand(2, 2, 3))
