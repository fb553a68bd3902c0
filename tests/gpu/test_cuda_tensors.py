"""The Python backends and the public functions on CUDA tensors. All of tests/gpu: `python -m pytest tests/gpu -s`."""

from __future__ import annotations

import pytest
import torch
from clouds import lattice, naive_apml, sphere

from apml_plugin.functional import apml_loss, chamfer_distance, matching_plan

pytestmark = pytest.mark.gpu
BACKENDS = ("dense", "sparse", "native")


def on_gpu(*clouds: torch.Tensor) -> list[torch.Tensor]:
    return [cloud.cuda().requires_grad_() for cloud in clouds]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("ties", ["share", "uniform"])
def test_against_plain_loops(backend: str, ties: str) -> None:
    for pred, gt in ((lattice(3, 0.1), lattice(3, 0.1) + 0.05), (sphere(40), sphere(50, seed=1))):
        value, pred_grad, gt_grad, plan = naive_apml(pred[0], gt[0], ties=ties)
        x, y = on_gpu(pred, gt)
        options = {"ties": ties, "backend": backend, "threshold": 1e-30}
        loss = apml_loss(x, y, **options)
        loss.backward()
        assert loss.item() == pytest.approx(value, rel=1e-9)
        torch.testing.assert_close(x.grad[0].cpu(), pred_grad, rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(y.grad[0].cpu(), gt_grad, rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(matching_plan(x, y, **options).to_dense()[0].cpu(), plan, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("backend", ["sparse", "native"])
def test_the_devices_agree(dtype: torch.dtype, backend: str) -> None:
    gt = sphere(3000, batch=2).to(dtype)
    pred = (gt.double() + 0.02 * torch.randn(2, 3000, 3, dtype=torch.float64)).to(dtype)
    for loss in (lambda a, b: apml_loss(a, b, backend=backend), chamfer_distance):
        results = []
        for device in ("cpu", "cuda"):
            x, y = (cloud.to(device).detach().requires_grad_() for cloud in (pred, gt))
            value = loss(x, y)
            value.backward()
            results.append((value.item(), x.grad.cpu().double()))
        assert results[1][0] == pytest.approx(results[0][0], rel=1e-5)
        error = (results[1][1] - results[0][1]).norm() / results[0][1].norm()
        assert error < (1e-2 if dtype == torch.float16 else 1e-5)


@pytest.mark.parametrize("backend", ["sparse", "native"])
def test_two_runs_give_the_same_bits(backend: str) -> None:
    x, y = torch.randn(1, 5000, 3, device="cuda"), torch.randn(1, 5000, 3, device="cuda")
    runs = []
    for _ in range(2):
        pred = x.clone().requires_grad_()
        loss = apml_loss(pred, y, backend=backend)
        loss.backward()
        runs.append((loss.detach(), pred.grad))
    assert torch.equal(runs[0][0], runs[1][0])
    assert torch.equal(runs[0][1], runs[1][1])


def test_memory_stays_with_the_support() -> None:
    gt = sphere(65536).float().cuda()
    pred = (gt + 0.02 * torch.randn_like(gt)).requires_grad_()
    torch.cuda.reset_peak_memory_stats()
    apml_loss(pred, gt).backward()
    assert torch.cuda.max_memory_allocated() < 2e9
