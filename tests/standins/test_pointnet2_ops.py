"""The pointnet2_ops stand-in against plain loops."""

from __future__ import annotations

import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apml_plugin.errors import LossValueError
from apml_plugin.standins import pointnet2_ops as ops


def furthest_by_loops(cloud: list[list[float]], count: int) -> list[int]:
    chosen, gap = [0], [1e10] * len(cloud)
    while len(chosen) < count:
        best, winner = -1.0, 0
        for i, p in enumerate(cloud):
            if sum(c * c for c in p) <= 1e-3:
                continue
            gap[i] = min(gap[i], sum((c - d) ** 2 for c, d in zip(p, cloud[chosen[-1]], strict=True)))
            if gap[i] > best:
                best, winner = gap[i], i
        chosen.append(winner)
    return chosen


@pytest.mark.parametrize("padding", [0, 30, 60])
def test_furthest_points(padding):
    cloud = torch.rand(2, 60, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    cloud[0, 60 - padding :] = 0
    got = ops.furthest_point_sample(cloud, torch.tensor(25))
    assert got.dtype == torch.int32
    assert got.tolist() == [furthest_by_loops(c.tolist(), 25) for c in cloud]


def test_furthest_points_skip_the_surroundings_of_the_origin():
    cloud = torch.tensor([[[0.0, 0, 0], [0.03, 0, 0], [0.04, 0, 0], [-1, 0, 0], [-1, 0, 0]]])
    # 0.03 is inside sqrt(0.001) = 0.0316 and never comes; index 0 comes first all the same.
    assert ops.furthest_point_sample(cloud, 5).tolist() == [[0, 3, 2, 2, 2]]


def test_furthest_points_are_quick():
    cloud = torch.rand(4, 2048, 3)
    ops.furthest_point_sample(cloud, 8)
    start = time.perf_counter()
    ops.furthest_point_sample(cloud, 512)
    assert time.perf_counter() - start < 1


def test_gather_and_group():
    g = torch.Generator().manual_seed(2)
    features = torch.rand(2, 4, 9, generator=g, dtype=torch.float64, requires_grad=True)
    idx = torch.randint(0, 9, (2, 5), generator=g).int()
    groups = torch.randint(0, 9, (2, 5, 3), generator=g).int()
    gathered, grouped = ops.gather_operation(features, idx), ops.grouping_operation(features, groups)
    for b in range(2):
        for c in range(4):
            assert gathered[b, c].tolist() == [features[b, c, i].item() for i in idx[b]]
            for p in range(5):
                assert grouped[b, c, p].tolist() == [features[b, c, i].item() for i in groups[b, p]]
    assert torch.autograd.gradcheck(lambda f: ops.gather_operation(f, idx), (features,))
    assert torch.autograd.gradcheck(lambda f: ops.grouping_operation(f, groups), (features,))


def test_three_nearest():
    g = torch.Generator().manual_seed(4)
    unknown, known = torch.rand(2, 30, 3, generator=g), torch.rand(2, 11, 3, generator=g)
    known[:, 5] = known[:, 2]  # a tie: the lower index comes first
    dist, idx = ops.three_nn(unknown, known)
    for b in range(2):
        for i in range(30):
            d = ((unknown[b, i] - known[b]) ** 2).sum(-1).sqrt().tolist()
            order = sorted(range(11), key=lambda j: (d[j], j))[:3]
            assert idx[b, i].tolist() == order
            assert dist[b, i].tolist() == pytest.approx([d[j] for j in order], rel=1e-6)
    dist, idx = ops.three_nn(unknown, known[:, :2])
    assert dist[..., 2].isinf().all()
    assert not idx[..., 2].any()


def test_interpolation():
    g = torch.Generator().manual_seed(5)
    features = torch.rand(2, 4, 7, generator=g, dtype=torch.float64, requires_grad=True)
    idx = torch.randint(0, 7, (2, 6, 3), generator=g).int()
    weight = torch.rand(2, 6, 3, generator=g, dtype=torch.float64)
    got = ops.three_interpolate(features, idx, weight)
    for b in range(2):
        for i in range(6):
            want = sum(weight[b, i, k] * features[b, :, idx[b, i, k]] for k in range(3))
            assert torch.allclose(got[b, :, i], want, rtol=1e-12)
    assert torch.autograd.gradcheck(lambda f: ops.three_interpolate(f, idx, weight), (features,))


def test_balls():
    g = torch.Generator().manual_seed(6)
    xyz, centres = torch.rand(2, 40, 3, generator=g), torch.rand(2, 10, 3, generator=g)
    centres[0, 0] = 5.0  # nothing there
    got = ops.ball_query(0.3, 6, xyz, centres)
    assert got.dtype == torch.int32
    for b in range(2):
        for i in range(10):
            hits = [j for j in range(40) if ((xyz[b, j] - centres[b, i]) ** 2).sum() < 0.09][:6]
            first = hits[0] if hits else 0
            assert got[b, i].tolist() == hits + [first] * (6 - len(hits))
    # A point on the sphere is outside; more places than points are filled up.
    line = torch.tensor([[[0.0, 0, 0], [0.5, 0, 0], [0.25, 0, 0]]])
    assert ops.ball_query(0.5, 4, line, line[:, :1]).tolist() == [[[0, 2, 0, 0]]]


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 8), p=st.integers(1, 4), size=st.integers(1, 5), channels=st.integers(0, 3), xyz=st.booleans())
def test_groups(n, p, size, channels, xyz):
    g = torch.Generator().manual_seed(n * 7 + p)
    cloud, centres = torch.rand(2, n, 3, generator=g), torch.rand(2, p, 3, generator=g)
    features = torch.rand(2, channels, n, generator=g) if channels else None
    group, everyone = ops.QueryAndGroup(0.6, size, use_xyz=xyz), ops.GroupAll(use_xyz=xyz)
    if not xyz and not channels:
        for call in (lambda: group(cloud, centres), lambda: everyone(cloud, None)):
            with pytest.raises(LossValueError, match="use_xyz=True"):
                call()
        return
    got, whole = group(cloud, centres, features), everyone(cloud, None, features)
    index = ops.ball_query(0.6, size, cloud, centres)
    assert got.shape == (2, 3 * xyz + channels, p, size)
    assert whole.shape == (2, 3 * xyz + channels, 1, n)
    for b in range(2):
        for i in range(p):
            for s in range(size):
                j = int(index[b, i, s])
                want = [*(cloud[b, j] - centres[b, i]).tolist()] if xyz else []
                want += features[b, :, j].tolist() if channels else []
                assert got[b, :, i, s].tolist() == want
        for j in range(n):
            want = [*cloud[b, j].tolist()] if xyz else []
            assert whole[b, :, 0, j].tolist() == want + (features[b, :, j].tolist() if channels else [])


def test_layers_of_pointnet2():
    xyz, features = torch.rand(2, 20, 3), torch.rand(2, 4, 20)
    widths = [4, 8, 16]
    layer = ops.PointnetSAModuleMSG(6, [0.4, 0.8], [5, 7], [widths, [4, 8]])
    assert widths == [7, 8, 16]
    assert {"mlps.0.0.weight", "mlps.0.1.running_mean", "mlps.1.0.weight"} <= set(layer.state_dict())
    centres, got = layer.eval()(xyz, features)
    assert got.shape == (2, 24, 6)
    assert torch.equal(centres[0], xyz[0, ops.furthest_point_sample(xyz, 6)[0].long()])
    group = ops.QueryAndGroup(0.4, 5)(xyz, centres, features)
    assert torch.equal(got[:, :16], layer.mlps[0](group).amax(dim=3))
    whole = ops.PointnetSAModule([4, 8], bn=False)
    nothing, pooled = whole(xyz, features)
    assert nothing is None
    assert pooled.shape == (2, 8, 1)
    assert "mlps.0.0.bias" in whole.state_dict()
    back = ops.PointnetFPModule([28, 10], bn=False)
    back.mlp[0].weight.data.fill_(1)
    out = back(xyz, centres, features, got)
    dist, idx = ops.three_nn(xyz, centres)
    weight = 1 / (dist + 1e-8)
    carried = ops.three_interpolate(got, idx, weight / weight.sum(dim=2, keepdim=True)).sum(dim=1)
    bias = back.mlp[0].bias[:, None]
    torch.testing.assert_close(out, ((carried + features.sum(dim=1))[:, None] + bias).relu(), rtol=1e-4, atol=1e-5)
    assert back(xyz, None, features, got[:, :, :1]).shape == (2, 10, 20)
    assert not out.isnan().any()
