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


def _standin_calls(device: str) -> dict[str, list[torch.Tensor]]:
    """What each stand-in gives for the same clouds on a device, brought to the CPU."""
    from apml_plugin.compat import pytorch3d
    from apml_plugin.standins import (
        chamfer,
        cubic_feature_sampling,
        emd,
        expansion_penalty,
        gridding,
        neighbours,
    )
    from apml_plugin.standins import pointnet2_ops as ops

    generator = torch.Generator().manual_seed(3)
    x, y, features, cube = (
        torch.rand(shape, generator=generator).to(device)
        for shape in ((2, 600, 3), (2, 600, 3), (2, 5, 600), (2, 4, 8, 8, 8))
    )
    bounds = (0, 6, 0, 6, 0, 6)
    results: dict[str, list[torch.Tensor]] = {"chamfer": [*chamfer.forward(x, y)]}
    results["chamfer"] += chamfer.backward(x, y, *results["chamfer"][2:], *results["chamfer"][:2])
    near = [torch.zeros(2, 600, device=device) for _ in range(2)]
    near += [torch.zeros(2, 600, device=device, dtype=torch.int32) for _ in range(2)]
    chamfer.forward_into(x, y, *near)
    results["chamfer_3D"] = near
    for forward in (gridding.forward, gridding.distance_forward):
        grid, weights, index = forward(*bounds, 6 * x)
        results[forward.__name__] = [grid, weights, index, gridding.backward(weights, index, grid)]
    points = gridding.rev_forward(8, cube[:, 0])
    results["reverse"] = [points, gridding.rev_backward(points, cube[:, 0], points)]
    sampled, index = cubic_feature_sampling.forward(8, 1, 9 * x, cube)
    results["sampling"] = [sampled, index, *cubic_feature_sampling.backward(8, 1, sampled, index)]
    results["knn"] = [*neighbours.KNN(7, True)(x, y)]
    far, idx = ops.three_nn(x, y)
    groups = ops.ball_query(0.2, 8, x, y)
    results["pointnet2"] = [ops.furthest_point_sample(x, 64), far, idx, groups]
    results["pointnet2"] += [ops.gather_operation(features, idx[..., 0]), ops.grouping_operation(features, groups)]
    results["pointnet2"] += [ops.three_interpolate(features, idx, far), ops.QueryAndGroup(0.2, 8)(x, y, features)]
    results["pytorch3d"] = [*pytorch3d.knn_points(x, y, K=5, return_nn=True), *pytorch3d.ball_query(x, y, K=8)]
    results["pytorch3d"] += [*pytorch3d.sample_farthest_points(x, K=9), pytorch3d.chamfer_distance(x, y, norm=1)[0]]
    ends = torch.tensor([600, 1200], device=device, dtype=torch.int32)
    flat, rows = x.view(1200, 3), torch.zeros(1200, 4, device=device, dtype=torch.int32)
    results["pointops"] = [rows, torch.zeros(1200, 4, device=device), torch.zeros(20, device=device).int()]
    neighbours.knnquery_cuda(1200, 4, flat, y.view(1200, 3), ends, ends, *results["pointops"][:2])
    neighbours.furthestsampling_cuda(2, 600, flat, ends, ends // 60, flat[:, 0], results["pointops"][2])
    tree = [torch.zeros(2, 600, device=device, dtype=torch.int32), torch.zeros(2, 600, device=device)]
    mean = torch.zeros(2, device=device)
    expansion_penalty.forward(x, 20, *tree, 1.2, mean, mean, mean)
    pull = torch.zeros_like(x)
    expansion_penalty.backward(x, pull, tree[1], tree[0])
    results["expansion"] = [*tree, mean, pull]
    buffers = [torch.zeros(2, 600, device=device) for _ in range(4)]
    emd.forward(x, y, *buffers, *[mean] * 8, 0.005, 50)
    move = torch.zeros_like(x)
    emd.backward(x, y, move, buffers[0], buffers[1])
    results["emd"] = [*buffers, move]
    assert all(tensor.device.type == device for tensors in results.values() for tensor in tensors)
    return {name: [tensor.cpu() for tensor in tensors] for name, tensors in results.items()}


def test_stand_ins_give_what_they_give_on_the_cpu() -> None:
    expected, got = _standin_calls("cpu"), _standin_calls("cuda")
    for name, tensors in expected.items():
        for want, have in zip(tensors, got[name], strict=True):
            torch.testing.assert_close(have, want, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
