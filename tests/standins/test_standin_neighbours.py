"""The stand-ins of chamfer_3D and knn_cuda: in place like the one, both layouts like the other."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apml_plugin.errors import LossValueError
from apml_plugin.standins import chamfer, chamfer_3D
from apml_plugin.standins.knn_cuda import KNN


class Chamfer(torch.autograd.Function):
    """The way hosts wrap the compiled module."""

    @staticmethod
    def forward(ctx, a, b):
        shapes = (a.shape[:2], b.shape[:2])
        dist = [torch.zeros(shape, dtype=a.dtype) for shape in shapes]
        index = [torch.zeros(shape).type(torch.IntTensor) for shape in shapes]
        chamfer_3D.forward(a, b, *dist, *index)
        ctx.save_for_backward(a, b, *index)
        ctx.mark_non_differentiable(*index)
        return *dist, *index

    @staticmethod
    def backward(ctx, g1, g2, *_):
        a, b, idx1, idx2 = ctx.saved_tensors
        grads = torch.zeros_like(a), torch.zeros_like(b)
        chamfer_3D.backward(a, b, *grads, g1, g2, idx1, idx2)
        return grads


def test_chamfer_in_place():
    generator = torch.Generator().manual_seed(1)
    a = torch.rand(2, 9, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    b = torch.rand(2, 6, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    for got, want in zip(Chamfer.apply(a, b), chamfer.forward(a, b), strict=True):
        assert torch.equal(got, want)
        assert got.dtype == want.dtype
    assert torch.autograd.gradcheck(lambda x, y: Chamfer.apply(x, y)[:2], (a, b))
    with pytest.raises(LossValueError, match=r"\(2, 6\) results has shape \(2, 9\)"):
        chamfer_3D.forward(a, b, *(torch.zeros(2, 9) for _ in range(4)))


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
    distance, index = KNN(k, transpose_mode=True)(ref, query)
    assert index.dtype == torch.int64
    assert distance.shape == index.shape == (batch, queries, k)
    for b in range(batch):
        for i in range(queries):
            far = [(ref[b, j] - query[b, i]).norm().item() for j in range(n)]
            order = sorted(range(n), key=lambda j: (far[j], j))[:k]
            assert index[b, i].tolist() == order
            assert distance[b, i].tolist() == pytest.approx([far[j] for j in order], rel=1e-12)
    flipped, where = KNN(k=k)(ref.transpose(1, 2), query.transpose(1, 2))
    assert torch.equal(flipped, distance.transpose(1, 2))
    assert torch.equal(where, index.transpose(1, 2))
    assert flipped.is_contiguous()


def test_too_few_references():
    with pytest.raises(LossValueError, match="ref has 3 points, fewer than k = 4"):
        KNN(4, True)(torch.rand(1, 3, 3), torch.rand(1, 2, 3))
    with pytest.raises(LossValueError, match="do not fit"):
        KNN(1, True)(torch.rand(1, 3, 3), torch.rand(2, 2, 3))
