"""The emd stand-in: a true assignment, exact where it says so, through a wrapper like the hosts'."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from apml_plugin.errors import LossValueError
from apml_plugin.standins import emd


class Emd(torch.autograd.Function):
    """The way hosts wrap the compiled module, buffers and all."""

    @staticmethod
    def forward(ctx, a, b, eps, iters):
        batch, n, _ = a.shape
        ints = {name: torch.zeros(batch, n, dtype=torch.int32) - 1 for name in ("assignment", "inverse")}
        scratch = [torch.zeros(batch * n, dtype=torch.int32), *(torch.zeros(512, dtype=torch.int32) for _ in range(3))]
        dist, price = torch.zeros(batch, n, dtype=a.dtype), torch.zeros(batch, n, dtype=a.dtype)
        bids = [torch.zeros(batch, n, dtype=torch.int32), torch.zeros(batch, n), torch.zeros(batch, n)]
        last = torch.zeros(batch * n, dtype=torch.int32)
        emd.forward(a, b, dist, ints["assignment"], price, ints["inverse"], *bids, *scratch, last, eps, iters)
        ctx.save_for_backward(a, b, ints["assignment"])
        ctx.mark_non_differentiable(ints["assignment"], ints["inverse"])
        return dist, ints["assignment"], ints["inverse"]

    @staticmethod
    def backward(ctx, grad, *_):
        a, b, assignment = ctx.saved_tensors
        result = torch.zeros_like(a)
        emd.backward(a, b, result, grad.contiguous(), assignment)
        return result, torch.zeros_like(b), None, None


def lengths(a, b, partner):
    return (a - b[partner.long()]).norm(dim=-1)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 6), batch=st.integers(1, 3), seed=st.integers(0, 99), copies=st.booleans())
def test_small_clouds_are_matched_exactly(n, batch, seed, copies):
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.rand(2, batch, n, 3, generator=generator, dtype=torch.float64)
    if copies:
        a[:, n // 2 :] = a[:, :1]
    dist, partner, owner = Emd.apply(a, b, 0.005, 50)
    assert (partner.dtype, owner.dtype) == (torch.int32, torch.int32)
    for k in range(batch):
        best = min(sum(math.dist(a[k, i], b[k, j]) for i, j in enumerate(p)) for p in itertools.permutations(range(n)))
        assert sorted(partner[k].tolist()) == list(range(n))
        assert [partner[k].tolist().index(j) for j in range(n)] == owner[k].tolist()
        assert lengths(a[k], b[k], partner[k]).sum().item() == pytest.approx(best, rel=1e-12)
        for i in range(n):
            assert dist[k, i].item() == pytest.approx(math.dist(a[k, i], b[k, partner[k, i]]) ** 2, rel=1e-12)


def test_gradients():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 2, 7, 3, generator=generator, dtype=torch.float64)
    a.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: Emd.apply(x, b, 0.005, 50)[0], (a,))
    b.requires_grad_()
    dist, partner, _ = Emd.apply(a, b, 0.005, 50)
    dist.sum().backward()
    want = 2 * (a - b.gather(1, partner.long()[..., None].expand(-1, -1, 3)))
    assert torch.allclose(a.grad, want)
    assert not b.grad.any()  # the compiled code gives the second cloud none


def clouds(kind: str, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    noise = torch.randn(n, 3, generator=generator)
    b = torch.randn(n, 3, generator=generator)
    b = 0.5 * b / b.norm(dim=1, keepdim=True)
    if kind == "near":
        return b + 0.01 * noise, b
    if kind == "clumps":
        return b[torch.randint(n // 8, (n,), generator=generator)] + 0.002 * noise, b
    if kind == "zeros":
        return torch.cat([b[: n // 2], torch.zeros(n - n // 2, 3)]), b
    return 0.05 * noise, b


@pytest.mark.parametrize("kind", ["near", "clumps", "zeros", "blob"])
def test_large_clouds_are_matched_one_to_one_and_well(kind, monkeypatch):
    monkeypatch.setattr(emd, "EXACT", 32)  # so that what takes 1024 points comes at 300
    a, b = clouds(kind, 300)
    partner = Emd.apply(a[None], b[None], 0.005, 50)[1][0]
    assert partner.sort().values.tolist() == list(range(300))
    rows, columns = linear_sum_assignment(torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").numpy())
    best = lengths(a[rows], b, torch.from_numpy(columns)).sum().item()
    assert best * (1 - 1e-5) <= lengths(a, b, partner).sum().item() <= best * 1.02


def test_refusals():
    a = torch.rand(1, 4, 3)
    with pytest.raises(LossValueError, match=r"\(1, 4, 3\) and \(1, 5, 3\); sample the larger down"):
        Emd.apply(a, torch.rand(1, 5, 3), 0.005, 50)
    with pytest.raises(LossValueError, match="eps must be above 0, got 0"):
        Emd.apply(a, a, 0, 50)
    with pytest.raises(LossValueError, match="xyz2 has a coordinate that is NaN"):
        Emd.apply(a, a * math.inf, 0.005, 50)
