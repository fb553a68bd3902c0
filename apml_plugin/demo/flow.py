"""``apml demo flow``: points moved by the gradient of each loss, from a blob or a cube onto a shape.

The shape is a dense box (80 % of the points) inside a sparse ring (20 %). Nothing is learnt: what is seen is
the loss alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from apml_plugin.functional import chamfer_distance, nearest_neighbours
from apml_plugin.registry import build_loss

LOSSES = ("ChamferL1", "ChamferL2", "APML")
STARTS = ("blob", "cube")
POINTS = 512
STEPS = 300
LEARNING_RATE = 0.01


@dataclass(frozen=True)
class Result:
    """Where one loss moved the points, and how far that is from the target.

    ``emd``: mean distance of the optimal one-to-one assignment. ``covered``: share of the target's points that
    are some moved point's nearest.
    """

    start: str
    loss: str
    points: Tensor  # (N, 3)
    emd: float
    cd_l1: float
    covered: float


def target_shape(n: int = POINTS, seed: int = 0) -> Tensor:
    """(n, 3): 80 % in a box of side 0.4 around the origin, 20 % on a ring of radius 1 in the x-y plane."""
    generator = torch.Generator().manual_seed(seed)
    dense = round(0.8 * n)
    box = 0.4 * (torch.rand(dense, 3, generator=generator) - 0.5)
    angle = 2 * torch.pi * torch.rand(n - dense, generator=generator)
    ring = torch.stack((angle.cos(), angle.sin(), torch.zeros_like(angle)), dim=-1)
    return torch.cat((box, ring + 0.02 * torch.randn(ring.shape, generator=generator)))


def start_cloud(kind: str, n: int = POINTS, seed: int = 1) -> Tensor:
    """(n, 3): a blob of sigma 0.05 beside the box, or a uniform cube of side 2."""
    generator = torch.Generator().manual_seed(seed)
    if kind == "blob":
        return 0.05 * torch.randn(n, 3, generator=generator) + torch.tensor([0.3, 0.3, 0.0])
    return 2 * torch.rand(n, 3, generator=generator) - 1


def move(
    start: Tensor, target: Tensor, loss: str, steps: int = STEPS, tick: Callable[[], None] | None = None
) -> Tensor:
    """(N, 3): the start after ``steps`` steps of Adam along the gradient of ``loss``."""
    criterion = build_loss(loss)
    points = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([points], lr=LEARNING_RATE)
    for _ in range(steps):
        optimizer.zero_grad()
        criterion(points[None], target[None]).backward()
        optimizer.step()
        if tick is not None:
            tick()
    return points.detach()


def judge(start: str, loss: str, points: Tensor, target: Tensor) -> Result:
    """Measures moved points (N, 3) against the target (N, 3)."""
    cost = torch.cdist(points.double(), target.double(), compute_mode="donot_use_mm_for_euclid_dist").numpy()
    rows, columns = linear_sum_assignment(cost)
    nearest = nearest_neighbours(points, target)[1]
    return Result(
        start,
        loss,
        points,
        float(cost[rows, columns].mean()),
        chamfer_distance(points[None], target[None], norm="L1").item(),
        len(nearest.unique()) / len(target),
    )


def run(out: Path, steps: int = STEPS, points: int = POINTS) -> tuple[list[Result], Path]:
    """Moves the points with each loss from each start; writes ``flow.png`` into ``out``.

    Returns the results and the picture's path.
    """
    from rich.progress import Progress

    target = target_shape(points)
    results = []
    with Progress(transient=True) as progress:
        task = progress.add_task("moving points", total=steps * len(LOSSES) * len(STARTS))
        for kind in STARTS:
            for loss in LOSSES:
                moved = move(start_cloud(kind, points), target, loss, steps, lambda: progress.advance(task))
                results.append(judge(kind, loss, moved, target))
    out.mkdir(parents=True, exist_ok=True)
    path = out / "flow.png"
    draw(results, target, points, path)
    return results, path


def draw(results: list[Result], target: Tensor, points: int, path: Path) -> None:
    """One row a start: where the points began, where each loss left them, and where they should be."""
    import matplotlib

    matplotlib.use("Agg", force=False)
    from matplotlib import pyplot as plt

    shown = [torch.cat((target, *(r.points for r in results)))]
    limit = 1.05 * float(torch.cat(shown)[:, :2].abs().quantile(0.999))
    figure, axes = plt.subplots(len(STARTS), len(LOSSES) + 2, figsize=(15, 6.9))
    figure.set_layout_engine("constrained", h_pad=0.12)
    for row, kind in zip(axes, STARTS, strict=True):
        mine = {r.loss: r for r in results if r.start == kind}
        _scatter(row[0], start_cloud(kind, points), limit, f"start: {kind}", "")
        for axis, loss in zip(row[1:-1], LOSSES, strict=True):
            r = mine[loss]
            _scatter(axis, r.points, limit, loss, f"EMD {r.emd:.3f}   {r.covered:.0%} of the target covered")
        _scatter(row[-1], target, limit, "target", "80 % in the box, 20 % on the ring")
    figure.suptitle(
        f"{points} points moved by the gradient of each loss (seen from above; colour: distance to the 8th neighbour)"
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _scatter(axis: Any, cloud: Tensor, limit: float, title: str, below: str) -> None:
    xyz = cloud.numpy()
    gaps = np.sort(np.linalg.norm(xyz[:, None] - xyz[None], axis=-1), axis=1)[:, min(8, len(xyz) - 1)]
    order = np.argsort(-gaps)  # dense points on top, so that a pile of them shows
    axis.scatter(
        xyz[order, 0],
        xyz[order, 1],
        c=np.log10(gaps[order] + 1e-4),
        s=9,
        cmap="inferno",
        vmin=-3.2,
        vmax=-0.2,
        linewidths=0,
    )
    axis.set(
        xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xticks=[], yticks=[], title=title, xlabel=below
    )
