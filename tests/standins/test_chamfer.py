"""The stand-ins of chamfer, chamfer_3D and chamfer_dist against plain loops: values, ties, zeros, gradients."""

from __future__ import annotations

import pytest
import torch
from standins.serving import served

from apml_plugin.errors import LossValueError
from apml_plugin.matching import exact
from apml_plugin.standins import chamfer

chamfer_3D = served("chamfer_3D")


class Chamfer(torch.autograd.Function):
    """The way hosts wrap the compiled module."""

    @staticmethod
    def forward(ctx, a, b):
        dist1, dist2, idx1, idx2 = chamfer.forward(a, b)
        ctx.save_for_backward(a, b, idx1, idx2)
        return dist1, dist2

    @staticmethod
    def backward(ctx, g1, g2):
        return chamfer.backward(*ctx.saved_tensors, g1, g2)


def by_definition(a, b):
    """Smallest sum of squared differences and the first index that has it, for (B, N, 3) and (B, M, 3)."""
    d = (a[:, :, None, 0] - b[:, None, :, 0]) ** 2
    d = d + (a[:, :, None, 1] - b[:, None, :, 1]) ** 2
    d = d + (a[:, :, None, 2] - b[:, None, :, 2]) ** 2
    best = d.min(dim=-1, keepdim=True).values
    order = torch.arange(b.shape[1]).expand_as(d)
    return best[..., 0], torch.where(d == best, order, b.shape[1]).amin(dim=-1).int()


def lattice(n: int) -> torch.Tensor:
    axis = torch.arange(n).float() / 8
    return torch.cartesian_prod(axis, axis, axis)


def clouds(kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(3)
    a, b = torch.rand(2, 300, 3, generator=g), torch.rand(2, 257, 3, generator=g)
    if kind == "zero padding":
        a[:, 200:], b[:, 100:] = 0, 0
        b[0, 120:] = -0.0
    elif kind == "copies":
        b = torch.cat([a[:, 50:250], a[:, :200]], dim=1)
    elif kind == "lattice":  # every query has eight nearest points
        a, b = (lattice(7) + 1 / 16)[None], lattice(8)[None]
    elif kind == "collapsed":  # near-ties that float32 cannot tell apart
        b = 0.5 + 1e-7 * b
    elif kind == "small":
        a, b = a[:, :5], b[:, :1]
    elif kind == "few distinct":
        b = b[:, :3].repeat(1, 100, 1)
    return a, b


@pytest.mark.parametrize("kind", ["random", "zero padding", "copies", "lattice", "collapsed", "small", "few distinct"])
def test_is_the_definition_to_the_bit(kind):
    a, b = clouds(kind)
    dist1, dist2, idx1, idx2 = chamfer.forward(a, b)
    for dist, idx, (want_dist, want_idx) in (
        (dist1, idx1, by_definition(a, b)),
        (dist2, idx2, by_definition(b, a)),
    ):
        assert dist.dtype == torch.float32
        assert idx.dtype == torch.int32
        assert torch.equal(dist, want_dist)
        assert torch.equal(idx, want_idx)


def test_coincidence_is_exactly_zero():
    a = torch.rand(1, 2000, 3) + 100
    dist1, dist2, idx1, _ = chamfer.forward(a, a)
    assert not dist1.any()
    assert not dist2.any()
    assert torch.equal(idx1[0], torch.arange(2000).int())


def test_gradients():
    g = torch.Generator().manual_seed(0)
    a = torch.rand(2, 9, 3, generator=g, dtype=torch.float64, requires_grad=True)
    b = torch.rand(2, 6, 3, generator=g, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Chamfer.apply, (a, b))


def test_nan_stays_visible():
    a, b = torch.rand(1, 100, 3), torch.rand(1, 100, 3)
    a[0, 7, 1] = float("nan")
    dist1, dist2, _, _ = chamfer.forward(a, b)
    assert dist1[0, 7].isnan()
    assert not dist1[0, :7].isnan().any()
    assert dist2.isnan().any()


def test_bad_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 5, 3\) and \(3, 5, 3\)"):
        chamfer.forward(torch.rand(2, 5, 3), torch.rand(3, 5, 3))
    with pytest.raises(ValueError, match="no points"):
        chamfer.forward(torch.rand(1, 5, 3), torch.rand(1, 0, 3))


def test_blocks_do_not_change_the_answer(monkeypatch):
    a, b = clouds("lattice")
    want = chamfer.forward(a, b)
    monkeypatch.setattr(exact, "BLOCK_ENTRIES", 600)
    assert all(torch.equal(x, y) for x, y in zip(chamfer.forward(a, b), want, strict=True))


class InPlace(torch.autograd.Function):
    """The way hosts wrap the compiled chamfer_3D."""

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
    for got, want in zip(InPlace.apply(a, b), chamfer.forward(a, b), strict=True):
        assert torch.equal(got, want)
        assert got.dtype == want.dtype
    assert torch.autograd.gradcheck(lambda x, y: InPlace.apply(x, y)[:2], (a, b))
    with pytest.raises(LossValueError, match=r"\(2, 6\) results has shape \(2, 9\)"):
        chamfer_3D.forward(a, b, *(torch.zeros(2, 9) for _ in range(4)))


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
    x, y = (torch.rand(2, n, 3, dtype=torch.float64, requires_grad=True) for n in (12, 7))
    squares = ((x[:, :, None] - y[:, None]) ** 2).sum(dim=3)
    want = CLASSES[name](squares.amin(dim=2), squares.amin(dim=1))
    module = getattr(chamfer, name)()
    torch.testing.assert_close(module(x, y), want, rtol=1e-12, atol=0)
    assert torch.autograd.gradcheck(module, (x, y))
    padded = torch.cat([x[:1], torch.zeros(1, 5, 3)], dim=1)
    ignoring = getattr(chamfer, name)(ignore_zeros=True)
    torch.testing.assert_close(ignoring(padded, y[:1]), module(x[:1], y[:1]))
    assert not list(module.parameters())
    assert not module.state_dict()
