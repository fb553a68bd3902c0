"""Printed, not judged: the figures owed for a GPU, medians of CUDA events. As JSON in $OUT too, if that is set."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from apml_plugin.functional import apml_loss, chamfer_distance

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def surfaces(n: int, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    gt = torch.nn.functional.normalize(torch.randn(batch, n, 3, device="cuda"), dim=-1)
    return gt + 0.02 * torch.randn_like(gt), gt


def step(loss: Loss, pred: torch.Tensor, gt: torch.Tensor) -> None:
    loss(pred.detach().requires_grad_(), gt.detach().requires_grad_()).sum().backward()


def milliseconds(losses: dict[str, Loss], pred: torch.Tensor, gt: torch.Tensor, repeats: int = 9) -> dict[str, float]:
    """Medians of forward and backward, the losses taken in turns so that drift hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in losses}
    for turn in range(repeats + 2):
        for name, loss in losses.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            step(loss, pred, gt)
            end.record()
            end.synchronize()
            if turn >= 2:
                times[name].append(start.elapsed_time(end))
    return {name: statistics.median(taken) for name, taken in times.items()}


def megabytes(loss: Loss, pred: torch.Tensor, gt: torch.Tensor) -> float:
    """Peak memory above the inputs of one forward and backward."""
    step(loss, pred[:1, :64], gt[:1, :64])
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step(loss, pred, gt)
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def peers() -> dict[str, Loss]:
    """Chamfer extensions of others, where they are importable."""
    found: dict[str, Loss] = {}
    try:
        import chamfer  # PoinTr's extension

        class HostChamfer(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
                there, back, there_index, back_index = chamfer.forward(x, y)
                ctx.save_for_backward(x, y, there_index, back_index)
                ctx.shapes = there, back
                return there.mean() + back.mean()

            @staticmethod
            def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, ...]:
                there, back = (torch.full_like(part, 1 / part.numel()) * grad for part in ctx.shapes)
                x, y, there_index, back_index = ctx.saved_tensors
                return tuple(chamfer.backward(x, y, there_index, back_index, there, back))

        found["the host's chamfer"] = HostChamfer.apply
    except ImportError:
        pass
    try:
        from pytorch3d.loss import chamfer_distance as pytorch3d_chamfer

        found["pytorch3d chamfer"] = lambda x, y: pytorch3d_chamfer(x, y)[0]
    except ImportError:
        pass
    return found


@pytest.fixture(scope="module")
def figures() -> Any:
    gathered: dict[str, Any] = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__}
    yield gathered
    print("\n" + json.dumps(gathered, indent=2))
    if out := os.environ.get("OUT"):
        Path(out, "gpu_figures.json").write_text(json.dumps(gathered, indent=2) + "\n")


def native(pred: torch.Tensor, gt: torch.Tensor) -> torch.Tensor:
    return apml_loss(pred, gt, backend="native")


def through_plan(pred: torch.Tensor, gt: torch.Tensor) -> torch.Tensor:
    return apml_loss(pred, gt, backend="native", differentiate_plan=True)


@pytest.mark.parametrize(("batch", "n"), [(4, 2048), (8, 8192), (32, 16384)])
def test_time(figures: dict[str, Any], batch: int, n: int) -> None:
    pred, gt = surfaces(n, batch)
    losses = {"APML": native, "APML, plan differentiated": through_plan, "ChamferL2": chamfer_distance, **peers()}
    figures[f"ms, B={batch}, N=M={n}"] = milliseconds(losses, pred, gt)


def test_time_of_a_blob(figures: dict[str, Any]) -> None:
    gt = surfaces(16384, 1)[1]
    figures["ms, blob, B=1, N=M=16384"] = milliseconds({"APML": native}, 0.05 * torch.randn_like(gt), gt)


def test_time_of_the_parts(figures: dict[str, Any]) -> None:
    """Kernels of one forward and backward, B=32, N=M=16384: where to look when it is slow."""
    from torch.profiler import ProfilerActivity, profile

    pred, gt = surfaces(16384, 32)
    step(native, pred, gt)
    with profile(activities=[ProfilerActivity.CUDA]) as watched:
        step(native, pred, gt)
        torch.cuda.synchronize()
    rows = {event.key[:90]: event.device_time_total / 1e3 for event in watched.key_averages()}
    longest = sorted(rows.items(), key=lambda row: -row[1])[:15]
    figures["ms by kernel, B=32, N=M=16384"] = dict(longest)


def test_memory_against_dense(figures: dict[str, Any]) -> None:
    pred, gt = surfaces(8192, 8)
    ours = megabytes(native, pred, gt)
    dense = megabytes(lambda x, y: apml_loss(x, y, backend="dense"), pred, gt)
    figures["MB, B=8, N=M=8192"] = {"APML": ours, "dense": dense, "percent": 100 * ours / dense}


def test_a_million_points(figures: dict[str, Any]) -> None:
    pred, gt = surfaces(1_000_000, 1)
    taken = milliseconds({"APML": native, "ChamferL2": chamfer_distance}, pred, gt, repeats=5)
    figures["ms, B=1, N=M=1000000"] = {**taken, "MB": megabytes(native, pred, gt)}
