"""The stand-ins of GRNet's three modules against plain loops: values, indices, gradients, refusals."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from standins.serving import served

from apml_plugin.errors import LossValueError
from apml_plugin.standins import cubic_feature_sampling, gridding

gridding_distance = served("gridding_distance")
CORNERS = list(itertools.product((0, 1), repeat=3))
BOUNDS = (-3, 2, -2, 2, -1, 3)
LENGTHS = (6, 5, 5)


class Gridding(torch.autograd.Function):
    """The way hosts wrap the compiled modules; the three below too."""

    @staticmethod
    def forward(ctx, cloud, module):
        grid, weights, index = module.forward(*BOUNDS, cloud)
        ctx.save_for_backward(weights, index)
        ctx.module = module
        return grid

    @staticmethod
    def backward(ctx, grad):
        return ctx.module.backward(*ctx.saved_tensors, grad), None


class Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, grid, scale):
        points = gridding.rev_forward(scale, grid)
        ctx.save_for_backward(grid, points)
        return points

    @staticmethod
    def backward(ctx, grad):
        grid, points = ctx.saved_tensors
        return gridding.rev_backward(points, grid, grad).view_as(grid), None


class Sampling(torch.autograd.Function):
    @staticmethod
    def forward(ctx, cloud, features, reach):
        ctx.scale, ctx.reach = features.shape[2], reach
        out, index = cubic_feature_sampling.forward(ctx.scale, reach, cloud, features)
        ctx.save_for_backward(index)
        return out

    @staticmethod
    def backward(ctx, grad):
        return *cubic_feature_sampling.backward(ctx.scale, ctx.reach, grad, *ctx.saved_tensors), None


def cloud(n: int, batch: int = 1, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Points inside BOUNDS, every third on a grid plane or vertex."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(batch, n, 3, generator=generator, dtype=dtype)
    points = points * torch.tensor([5, 4, 4], dtype=dtype) + torch.tensor([-3, -2, -1], dtype=dtype)
    points[:, ::3, : 1 + seed % 3] = points[:, ::3, : 1 + seed % 3].floor()
    return points


def gridding_by_loops(points: torch.Tensor):
    """Lists: vertex values, weights [n][8][3] and vertices [n][8] of one cloud (n, 3)."""
    values, weights, vertices = [0.0] * math.prod(LENGTHS), [], []
    for p in points.tolist():
        weights.append([])
        vertices.append([])
        for corner in CORNERS:
            at = [math.floor(c) + up for c, up in zip(p, corner, strict=True)]
            weight = [1 - abs(c - a) for c, a in zip(p, at, strict=True)]
            x, y, z = (a - low for a, low in zip(at, BOUNDS[0::2], strict=True))
            vertex = (x * LENGTHS[1] + y) * LENGTHS[2] + z
            values[vertex] += math.prod(weight)
            weights[-1].append(weight)
            vertices[-1].append(vertex)
    return values, weights, vertices


@settings(max_examples=25, deadline=None)
@given(n=st.integers(0, 12), batch=st.integers(1, 3), seed=st.integers(0, 99))
def test_points_to_grids(n, batch, seed):
    points = cloud(n, batch, seed)
    grid, weights, index = gridding.forward(*BOUNDS, points)
    apart, weights_apart, index_apart = gridding_distance.forward(*(torch.tensor(float(b)) for b in BOUNDS), points)
    assert (index.dtype, index_apart.dtype) == (torch.int32, torch.int32)
    assert apart.shape == (batch, math.prod(LENGTHS), 8)
    for b in range(batch):
        want, want_weights, want_index = gridding_by_loops(points[b])
        assert grid[b].tolist() == pytest.approx(want, rel=1e-12)
        assert weights[b].tolist() == weights_apart[b].tolist() == want_weights
        assert index[b].tolist() == want_index
        assert index_apart[b].tolist() == [[8 * v + c for c, v in enumerate(row)] for row in want_index]
        assert apart[b].sum(dim=-1).tolist() == pytest.approx(want, rel=1e-12)
        for i, row in enumerate(want_index):
            for c, vertex in enumerate(row):
                others = [j for j in range(n) if want_index[j][c] == vertex]
                total = sum(math.prod(want_weights[j][c]) for j in others)
                assert apart[b, vertex, c].item() == pytest.approx(total, rel=1e-12), (i, c)


@pytest.mark.parametrize("module", [gridding, gridding_distance])
def test_gradients_of_points(module):
    points = cloud(7, batch=2, seed=1)
    # Off the planes: on one the value has a kink. There the compiled code takes the cell above, and so do we.
    points[:, ::3] += 0.25
    assert torch.autograd.gradcheck(lambda p: Gridding.apply(p, module), (points.requires_grad_(),))
    on_plane = torch.tensor([[[0.0, 0.5, 0.25]]], dtype=torch.float64, requires_grad=True)
    grid = Gridding.apply(on_plane, module).view(1, *LENGTHS, -1).sum(dim=-1)
    moment = (grid * torch.arange(LENGTHS[0])[:, None, None]).sum()
    moment.backward()
    assert on_plane.grad[0, 0].tolist() == pytest.approx([1, 0, 0], abs=1e-12)


def points_by_loops(grid: torch.Tensor, scale: int) -> list[list[float]]:
    result = []
    for place in itertools.product(range(scale), repeat=3):
        total, mean = 0.0, [0.0] * 3
        if min(place) > 0:
            corners = [[c - 1 + up for c, up in zip(place, corner, strict=True)] for corner in CORNERS]
            values = [grid[c[0], c[1], c[2]].item() for c in corners]
            total = sum(values)
            if total >= 1e-6:
                mean = [
                    sum(v * (c[a] - scale // 2) for v, c in zip(values, corners, strict=True)) / total for a in range(3)
                ]
        result.append(mean)
    return result


@settings(max_examples=20, deadline=None)
@given(scale=st.integers(1, 5), batch=st.integers(1, 2), seed=st.integers(0, 99))
def test_grids_to_points(scale, batch, seed):
    generator = torch.Generator().manual_seed(seed)
    grid = torch.rand(batch, scale, scale, scale, generator=generator, dtype=torch.float64)
    grid[grid < 0.7] = 0  # some cells have nothing in them
    grid[0, -2:] *= 1e-8  # and some next to nothing
    points = gridding.rev_forward(scale, grid)
    assert points.shape == (batch, scale**3, 3)
    for b in range(batch):
        flat = [v for p in points_by_loops(grid[b], scale) for v in p]
        assert points[b].flatten().tolist() == pytest.approx(flat, rel=1e-12, abs=1e-12)


def test_gradients_of_grids():
    grid = torch.rand(2, 4, 4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    grid[0, :2, :2] = 0  # empty cells, at the edge of 1e-6 or not, pass nothing on
    assert gridding.rev_forward(4, grid).abs().sum(dim=-1).eq(0).sum() > 2 * (64 - 27)
    assert torch.autograd.gradcheck(lambda g: Reverse.apply(g, 4), (grid[1:].requires_grad_(),))
    empty = gridding.rev_backward(torch.zeros(1, 64, 3), torch.zeros(1, 4, 4, 4), torch.full((1, 64, 3), math.nan))
    assert empty.shape == (1, 64)
    assert not empty.any()


def sampling_by_loops(points: torch.Tensor, features: torch.Tensor, reach: int):
    scale, offsets = features.shape[1], range(1 - reach, reach + 1)
    indices, values = [], []
    for p in points.tolist():
        indices.append([])
        values.append([])
        for step in itertools.product(offsets, repeat=3):
            x, y, z = (math.floor(c) + s for c, s in zip(p, step, strict=True))
            if min(x, y, z) < 0 or max(x, y, z) >= scale:
                indices[-1].append(-1)
                values[-1].append([0.0] * len(features))
            else:
                indices[-1].append((x * scale + y) * scale + z)
                values[-1].append(features[:, x, y, z].tolist())
    return values, indices


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(0, 6),
    channels=st.integers(1, 3),
    scale=st.integers(1, 4),
    reach=st.integers(1, 2),
    seed=st.integers(0, 99),
)
def test_features_around_points(n, channels, scale, reach, seed):
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(2, n, 3, generator=generator, dtype=torch.float64) * (scale + 3) - 1.5
    points[:, ::3] = points[:, ::3].round()
    if n > 4:
        points[0, 4] = 1e30  # no integer holds it
    features = torch.rand(2, channels, scale, scale, scale, generator=generator, dtype=torch.float64)
    out, index = cubic_feature_sampling.forward(scale, reach, points, features)
    assert index.dtype == torch.int32
    assert out.shape == (2, n, (2 * reach) ** 3, channels)
    for b in range(2):
        values, indices = sampling_by_loops(points[b], features[b], reach)
        assert out[b].tolist() == values
        assert index[b].tolist() == indices


def test_gradients_of_features():
    generator = torch.Generator().manual_seed(5)
    points = torch.rand(2, 4, 3, generator=generator, dtype=torch.float64) * 5 - 1
    features = torch.rand(2, 2, 3, 3, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f: Sampling.apply(points, f, 1), (features,))
    points.requires_grad_()
    Sampling.apply(points, features, 1).sum().backward()
    assert not points.grad.any()  # by design of the compiled code


@pytest.mark.parametrize("module", [gridding, gridding_distance])
@pytest.mark.parametrize(
    ("point", "message"),
    [
        ([2.0, 0, 0], r"ptcloud\[0, 1\] has x = 2, outside the grid's \[-3, 2\)"),
        ([0, -2.01, 0], r"has y = -2\.01, outside the grid's \[-2, 2\)"),
        ([0, 0, math.nan], r"has z = nan"),
    ],
)
def test_points_outside_are_refused(module, point, message):
    points = torch.zeros(1, 2, 3)
    points[0, 1] = torch.tensor(point)
    with pytest.raises(LossValueError, match=message):
        module.forward(*BOUNDS, points)


def test_other_refusals():
    far = torch.tensor([[[-900.0, -900, -900], [900, 900, 900]]])
    with pytest.raises(LossValueError, match="1803 x 1803 x 1803 vertices has more entries than int32"):
        gridding_distance.forward(-901, 901, -901, 901, -901, 901, far)
    with pytest.raises(LossValueError, match="from 1 to 1 along y"):
        gridding.forward(0, 2, 1, 1, 0, 2, torch.ones(1, 1, 3))
    with pytest.raises(LossValueError, match="holds no cells"):
        gridding.forward(0, math.nan, 0, 1, 0, 2, torch.ones(1, 1, 3))
    with pytest.raises(LossValueError, match=r"got \(2, 3\)"):
        gridding.forward(*BOUNDS, torch.ones(2, 3))
    with pytest.raises(LossValueError, match=r"4\^3 entries per sample, got \(1, 4, 4, 5\)"):
        gridding.rev_forward(4, torch.ones(1, 4, 4, 5))
    with pytest.raises(LossValueError, match="s = scale = 3"):
        cubic_feature_sampling.forward(3, 1, torch.ones(1, 2, 3), torch.ones(1, 2, 4, 4, 4))
    with pytest.raises(LossValueError, match=r"got 1, \(1, 2, 3\) and \(2, 2, 4, 4, 4\)"):
        cubic_feature_sampling.forward(4, 1, torch.ones(1, 2, 3), torch.ones(2, 2, 4, 4, 4))
    with pytest.raises(LossValueError, match=r"ptcloud\[0, 1\] is NaN"):
        cubic_feature_sampling.forward(4, 1, torch.tensor([[[0.0, 0, 0], [0, math.nan, 0]]]), torch.ones(1, 2, 4, 4, 4))


def test_a_grid_of_many_vertices():
    points = torch.rand(1, 2048, 3) * 100
    grid, weights, index = gridding_distance.forward(-1, 249, -1, 249, -1, 149, points)
    assert grid.shape == (1, 251 * 251 * 151, 8)  # 9.5 million vertices, 304 MB
    assert grid.sum().item() == pytest.approx(2048, rel=1e-5)
    # The weights of a point always sum to 1: what is the same everywhere moves nothing.
    moved = gridding_distance.backward(weights, index, torch.ones(1).expand(grid.shape))
    assert moved.abs().max() < 1e-5
