"""The expansion_penalty stand-in against Kruskal's tree and a pruning by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apml_plugin.errors import LossValueError
from apml_plugin.standins import expansion_penalty


class Expansion(torch.autograd.Function):
    """The way hosts wrap the compiled module."""

    @staticmethod
    def forward(ctx, xyz, size, alpha):
        batch, n, _ = xyz.shape
        dist, mean = torch.zeros(batch, n, dtype=xyz.dtype), torch.zeros(batch, dtype=xyz.dtype)
        assignment = torch.zeros(batch, n, dtype=torch.int32) - 1
        scratch = torch.zeros(batch, n * 512, dtype=torch.int32), torch.zeros(batch, n * 512)
        expansion_penalty.forward(xyz, size, assignment, dist, alpha, *scratch, mean)
        ctx.save_for_backward(xyz, assignment)
        ctx.mark_non_differentiable(assignment)
        return dist, assignment, mean / (n / size)

    @staticmethod
    def backward(ctx, grad, *_):
        xyz, assignment = ctx.saved_tensors
        result = torch.zeros_like(xyz)
        expansion_penalty.backward(xyz, result, grad.contiguous(), assignment)
        return result, None, None


def by_loops(points: list[list[float]], alpha: float):
    """Charged lengths, other ends and the mean edge of one patch."""
    n = len(points)
    pairs = sorted((math.dist(points[i], points[j]), i, j) for i in range(n) for j in range(i))
    part, edges = list(range(n)), []
    for length, i, j in pairs:  # Kruskal
        if part[i] != part[j]:
            edges.append((length, i, j))
            part = [part[i] if p == part[j] else p for p in part]
    mean = sum(e[0] for e in edges) / max(1, n - 1)
    charged, other = [0.0] * n, [-1] * n
    while edges:
        degree = [sum(v in e[1:] for e in edges) for v in range(n)]
        kept = []
        for length, i, j in edges:
            if degree[i] > 1 and degree[j] > 1:
                kept.append((length, i, j))
                continue
            leaf, end = max(i, j), min(i, j)
            if (degree[i] == 1) != (degree[j] == 1):
                leaf, end = (i, j) if degree[i] == 1 else (j, i)
            if length > mean * alpha:
                charged[leaf], other[leaf] = length, end
        edges = kept
    return charged, other, mean


@settings(max_examples=30, deadline=None)
@given(size=st.integers(1, 9), patches=st.integers(1, 3), batch=st.integers(1, 2), seed=st.integers(0, 999))
def test_long_edges_of_trees(size, patches, batch, seed):
    generator = torch.Generator().manual_seed(seed)
    xyz = torch.rand(batch, size * patches, 3, generator=generator, dtype=torch.float64)
    dist, assignment, mean = Expansion.apply(xyz, size, 1.1)
    for b in range(batch):
        want, ends, means = [], [], []
        for p in range(patches):
            charged, other, average = by_loops(xyz[b, p * size : (p + 1) * size].tolist(), 1.1)
            want += charged
            ends += [end + p * size if end >= 0 else -1 for end in other]
            means.append(average)
        assert dist[b].tolist() == pytest.approx(want, rel=1e-12)
        assert assignment[b].tolist() == ends
        assert mean[b].item() == pytest.approx(sum(means) / patches, rel=1e-12)


def test_the_gradient_is_that_of_the_squared_length_at_one_end():
    xyz = torch.rand(2, 12, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64, requires_grad=True)
    dist, assignment, _ = Expansion.apply(xyz, 6, 0.9)
    weight = torch.rand(dist.shape, dtype=torch.float64)
    (dist * weight).sum().backward()
    for b in range(2):
        for i in range(12):
            end = int(assignment[b, i])
            want = 2 * weight[b, i] * (xyz[b, i] - xyz[b, end]) if end >= 0 else torch.zeros(3).double()
            assert xyz.grad[b, i].tolist() == pytest.approx(want.tolist(), rel=1e-12)
    assert (assignment >= 0).any()


def test_points_that_make_no_whole_patches():
    with pytest.raises(LossValueError, match="10 points are no multiple of primitive_size 4"):
        Expansion.apply(torch.rand(1, 10, 3), 4, 1.5)
