"""``apml demo flow``: points moved by the gradient of each loss, from a blob or a cube onto a shape.

The shape is a dense box (80 % of the points) inside a sparse ring (20 %). Nothing is learnt, so the
result shows the loss alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apml_plugin import drawing
from apml_plugin.chosen import parse
from apml_plugin.functional import nearest_neighbours
from apml_plugin.metrics import cd_l1, emd
from apml_plugin.registry import build_loss

LOSSES = ("ChamferL1", "ChamferL2", "APML", "FastEMD")
STARTS = ("blob", "cube")
POINTS = 512
STEPS = 300
LEARNING_RATE = 0.01


@dataclass(frozen=True)
class Result:
    """Where one loss moved the points, and how far that is from the target.

    ``emd``: mean distance of the optimal one-to-one assignment. ``covered``: share of the target's points that
    are nearest to some moved point.
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
    start: Tensor,
    target: Tensor,
    loss: str,
    steps: int = STEPS,
    tick: Callable[[], None] | None = None,
    learning_rate: float = LEARNING_RATE,
) -> Tensor:
    """(N, 3): the start after ``steps`` steps of Adam along the gradient of ``loss``, a YAML text."""
    criterion = build_loss(parse(loss))
    points = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([points], lr=learning_rate)
    for _ in range(steps):
        optimizer.zero_grad()
        criterion(points[None], target[None]).backward()
        optimizer.step()
        if tick is not None:
            tick()
    return points.detach()


def judge(start: str, loss: str, points: Tensor, target: Tensor) -> Result:
    """Measures moved points (N, 3) against the target (N, 3)."""
    share = covered(points, target)
    return Result(start, loss, points, float(emd(points, target)), float(cd_l1(points, target)), share)


def covered(points: Tensor, target: Tensor) -> float:
    """The share of the target's points that are nearest to some point."""
    return len(nearest_neighbours(points, target)[1].unique()) / len(target)


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
    """A row for each start: where the points began, where each loss moved them, and where they should be."""
    limit = 1.05 * float(torch.cat((target, *(r.points for r in results)))[:, :2].abs().quantile(0.999))
    figure = drawing.new_figure(18, 6.9, layout="constrained")
    axes = figure.subplots(len(STARTS), len(LOSSES) + 2)
    for row, kind in zip(axes, STARTS, strict=True):
        _scatter(row[0], start_cloud(kind, points), limit, f"start: {kind}", "")
        for axis, r in zip(row[1:-1], (r for r in results if r.start == kind), strict=True):
            _scatter(axis, r.points, limit, r.loss, f"EMD {r.emd:.3f}   {r.covered:.0%} of the target covered")
        _scatter(row[-1], target, limit, "target", "80 % in the box, 20 % on the ring")
    title = "points moved by the gradient of each loss (seen from above; colour: distance to the 8th neighbour)"
    drawing.save(figure, path, f"{points} {title}")


def _scatter(axis: Any, cloud: Tensor, limit: float, title: str, below: str) -> None:
    xyz = cloud.numpy()
    gaps = drawing.spacing(xyz)
    order = np.argsort(-gaps)  # dense points on top, so that piles are visible
    colours = np.log10(gaps[order] + 1e-4)
    axis.scatter(xyz[order, 0], xyz[order, 1], c=colours, s=9, cmap="inferno", vmin=-3.2, vmax=-0.2, linewidths=0)
    drawing.set_frame(axis, (0.0, 0.0, limit))
    axis.set(title=title, xlabel=below)
