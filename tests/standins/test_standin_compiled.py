"""pointnet2_cuda, pointnet2_ops._ext, pointops_cuda, fps_cuda, mm3d_pn2 and chamfer_dist, called as hosts call them."""

from __future__ import annotations

import math

import pytest
import torch

from apml_plugin.standins import chamfer_dist, fps_cuda, mm3d_pn2, pointnet2_cuda, pointops_cuda
from apml_plugin.standins.pointnet2_ops import _ext, pointnet2_modules
from apml_plugin.standins.pointnet2_ops import pointnet2_utils as ops


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
    assert pointnet2_cuda.furthest_point_sampling_wrapper(2, 30, 9, points, temp, index) == 1
    assert index.tolist() == want
    gap, long = torch.full((2, 30), 1e10, dtype=torch.float64), torch.zeros(2, 9, dtype=torch.int64)
    fps_cuda.fps(points, gap, long)
    assert long.tolist() == want
    assert torch.equal(gap, temp)
    assert fps_cuda.farthest_point_sample(points.transpose(1, 2), 9).tolist() == want
    fps_cuda.farthest_point_sampling(points, long.zero_(), 9, torch.empty(0, dtype=torch.int32))
    assert long.tolist() == want
    fps_cuda.farthest_point_sampling(points, long, 9, torch.tensor([3, 5]))
    assert long.tolist() == [furthest(points[0], 9, 3), furthest(points[1], 9, 5)]
    assert mm3d_pn2.furthest_point_sample(points, 9).tolist() == want
    ends, new_ends = torch.tensor([30, 60]).int(), torch.tensor([9, 18]).int()
    flat = torch.empty(18, dtype=torch.int32)
    pointops_cuda.furthestsampling_cuda(2, 30, points.view(60, 3), ends, new_ends, temp.view(60), flat)
    assert flat.tolist() == want[0] + [30 + i for i in want[1]]


def test_clouds_of_unequal_sizes_one_behind_the_other():
    points, queries = rand(5 + 12 + 2, 3), rand(3 + 4 + 2, 3, seed=4)
    ends, new_ends = torch.tensor([5, 17, 19]).int(), torch.tensor([3, 7, 9]).int()
    chosen = torch.empty(9, dtype=torch.int32)
    pointops_cuda.furthestsampling_cuda(3, 12, points, ends, new_ends, torch.empty(19), chosen)
    want = furthest(points[:5], 3) + [5 + i for i in furthest(points[5:17], 4)] + [17, 18]
    assert chosen.tolist() == want
    idx, far = torch.zeros(9, 4, dtype=torch.int32), torch.zeros(9, 4, dtype=torch.float64)
    pointops_cuda.knnquery_cuda(9, 4, points, queries, ends, new_ends, idx, far)
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
            pointnet2_cuda.three_interpolate_wrapper(b, c, n, idx.shape[1], features, idx, weight, out)
        elif idx.dim() == 3:
            pointnet2_cuda.group_points_wrapper(b, c, n, *idx.shape[1:], features, idx, out)
        else:
            pointnet2_cuda.gather_points_wrapper(b, c, n, idx.shape[1], features, idx, out)
        return out

    @staticmethod
    def backward(ctx, grad):
        idx, weight, n = ctx.rest
        b, c = grad.shape[:2]
        result = grad.new_zeros(b, c, n)
        if weight is not None:
            pointnet2_cuda.three_interpolate_grad_wrapper(b, c, idx.shape[1], n, grad, idx, weight, result)
        elif idx.dim() == 3:
            pointnet2_cuda.group_points_grad_wrapper(b, c, n, *idx.shape[1:], grad, idx, result)
        else:
            pointnet2_cuda.gather_points_grad_wrapper(b, c, n, idx.shape[1], grad, idx, result)
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
    pointnet2_cuda.three_nn_wrapper(2, 8, 5, unknown, known, far, idx)
    squares = ((unknown[:, :, None] - known[:, None]) ** 2).sum(dim=3)
    want = squares.sort(dim=2, stable=True)
    torch.testing.assert_close(far, want.values[..., :3])
    assert torch.equal(idx.long(), want.indices[..., :3])
    root, index = ops.knn_query(7, known, unknown)  # more than there are
    torch.testing.assert_close(root[..., :5], want.values.sqrt())
    assert root[..., 5:].isinf().all()
    assert not index[..., 5:].any()
    assert torch.equal(_ext.knn_query(known, unknown, 3)[1], idx)
    assert mm3d_pn2.knn(3, known, unknown).tolist() == idx.transpose(1, 2).tolist()
    assert torch.equal(mm3d_pn2.knn(2, known.transpose(1, 2), None, True)[:, 0], torch.arange(5).int().expand(2, 5))
    group = ops.QueryAndGroup(None, 3)(known, unknown)
    torch.testing.assert_close(group.square().sum(dim=1), want.values[..., :3])
    balls = torch.zeros(2, 8, 4, dtype=torch.int32)
    pointnet2_cuda.ball_query_wrapper(2, 5, 8, 0.5, 4, unknown, known, balls)
    assert torch.equal(balls, ops.ball_query(0.5, 4, known, unknown))
    rings = mm3d_pn2.ball_query(0.3, 0.6, 4, known, torch.cat([unknown, known[:, :1]], dim=1))
    for b in range(2):
        for i, centre in enumerate([*unknown[b], known[b, 0]]):
            d = ((known[b] - centre) ** 2).sum(dim=1).tolist()
            hits = [j for j in range(5) if d[j] == 0 or 0.09 <= d[j] < 0.36][:4]
            assert rings[b, i].tolist() == hits + [hits[0] if hits else 0] * (4 - len(hits))


CLASSES = {
    "ChamferDistanceL2": lambda a, b: a.mean() + b.mean(),
    "ChamferDistance": lambda a, b: a.mean() + b.mean(),
    "ChamferDistanceL2_split": lambda a, b: (a.mean(), b.mean()),
    "PatialChamferDistanceL2": lambda a, b: a.mean(),
    "ChamferDistanceL1": lambda a, b: (a.sqrt().mean() + b.sqrt().mean()) / 2,
    "ChamferDistanceL1_split": lambda a, b: (a.sqrt().mean(), b.sqrt().mean()),
    "ChamferDistanceL1_PM": lambda a, b: a.sqrt().mean(),
    "PatialChamferDistanceL1": lambda a, b: a.sqrt().mean(),
}


@pytest.mark.parametrize("name", CLASSES)
def test_chamfer_classes(name):
    x, y = rand(2, 12, 3).requires_grad_(), rand(2, 7, 3, seed=9).requires_grad_()
    squares = ((x[:, :, None] - y[:, None]) ** 2).sum(dim=3)
    want = CLASSES[name](squares.amin(dim=2), squares.amin(dim=1))
    module = getattr(chamfer_dist, name)()
    torch.testing.assert_close(module(x, y), want, rtol=1e-12, atol=0)
    assert torch.autograd.gradcheck(module, (x, y))
    padded = torch.cat([x[:1], torch.zeros(1, 5, 3)], dim=1)
    ignoring = getattr(chamfer_dist, name)(ignore_zeros=True)
    torch.testing.assert_close(ignoring(padded, y[:1]), module(x[:1], y[:1]))
    assert not list(module.parameters())
    assert not module.state_dict()


def test_layers_of_pointnet2():
    xyz, features = rand(2, 20, 3).float(), rand(2, 4, 20).float()
    widths = [4, 8, 16]
    layer = pointnet2_modules.PointnetSAModuleMSG(6, [0.4, 0.8], [5, 7], [widths, [4, 8]])
    assert widths == [7, 8, 16]
    assert {"mlps.0.0.weight", "mlps.0.1.running_mean", "mlps.1.0.weight"} <= set(layer.state_dict())
    centres, got = layer.eval()(xyz, features)
    assert got.shape == (2, 24, 6)
    assert torch.equal(centres[0], xyz[0, ops.furthest_point_sample(xyz, 6)[0].long()])
    group = ops.QueryAndGroup(0.4, 5)(xyz, centres, features)
    assert torch.equal(got[:, :16], layer.mlps[0](group).amax(dim=3))
    whole = pointnet2_modules.PointnetSAModule([4, 8], bn=False)
    nothing, pooled = whole(xyz, features)
    assert nothing is None
    assert pooled.shape == (2, 8, 1)
    assert "mlps.0.0.bias" in whole.state_dict()
    back = pointnet2_modules.PointnetFPModule([28, 10], bn=False)
    back.mlp[0].weight.data.fill_(1)
    out = back(xyz, centres, features, got)
    dist, idx = ops.three_nn(xyz, centres)
    weight = 1 / (dist + 1e-8)
    carried = ops.three_interpolate(got, idx, weight / weight.sum(dim=2, keepdim=True)).sum(dim=1)
    bias = back.mlp[0].bias[:, None]
    torch.testing.assert_close(out, ((carried + features.sum(dim=1))[:, None] + bias).relu(), rtol=1e-4, atol=1e-5)
    assert back(xyz, None, features, got[:, :, :1]).shape == (2, 10, 20)
    assert not math.isnan(out.sum().item())


@pytest.mark.parametrize("module", [pointnet2_cuda, pointops_cuda, fps_cuda, mm3d_pn2, chamfer_dist])
def test_what_is_not_there_says_so(module):
    with pytest.raises(AttributeError, match="interpolation_forward_cuda is not in the stand-in"):
        _ = module.interpolation_forward_cuda
