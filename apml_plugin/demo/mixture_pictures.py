"""Pictures of mixtures: ellipsoids level by level, clouds between two shapes, registrations before and after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from apml_plugin.losses.mixture import Hierarchy, Mixture
from apml_plugin.models.pointgmm import mixture_to_points
from apml_plugin.studies.canvas import project

VIEW = project(np.eye(3, dtype=np.float32))
"""The projection is linear: rows are where the axes go (right, up, towards the viewer)."""
SIGMAS = 1.5
SHOWN = 2048


def levels(hierarchy: Hierarchy, clouds: Tensor, path: Path, rows: int = 3) -> Path:
    """One row a shape: its cloud, the ellipsoids of every level in the colour of their first ancestor, a sample."""
    plt, count = _pyplot(), len(hierarchy.levels)
    rows = min(rows, len(clouds))
    figure, axes = plt.subplots(rows, count + 2, figsize=(2.9 * (count + 2), 3.0 * rows), squeeze=False)
    drawn = mixture_to_points(hierarchy, SHOWN)
    palette = _palette(hierarchy.sizes[0])
    leaves = hierarchy.sizes[-1]
    flat = [hierarchy.flat(i) for i in range(count)]
    for r, row in enumerate(axes):
        cloud = clouds[r, :SHOWN]
        _points(row[0], cloud, "#555566")
        for axis, size, mixture in zip(row[1:-1], hierarchy.sizes, flat, strict=True):
            _ellipsoids(axis, mixture, r, palette[np.arange(size) * hierarchy.sizes[0] // size])
        nearest = torch.cdist(drawn[r], hierarchy.levels[-1].means[r]).argmin(-1).numpy()
        _points(row[-1], drawn[r], palette[nearest * hierarchy.sizes[0] // leaves])
        for axis in row:
            _frame(axis, cloud)
    titles = ["a held-out shape", *(f"{size} Gaussians" for size in hierarchy.sizes), f"{SHOWN} points drawn"]
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=12)
    return _save(figure, path, f"What PointGMM makes of shapes it has not seen (ellipsoids at {SIGMAS} sigma)")


def interpolation(hierarchy: Hierarchy, path: Path) -> Path:
    """A batch of mixtures on the way from one shape to another: the ellipsoids of the last level, points drawn."""
    plt, steps = _pyplot(), len(hierarchy)
    figure, axes = plt.subplots(2, steps, figsize=(2.6 * steps, 5.4), squeeze=False)
    drawn, flat = mixture_to_points(hierarchy, SHOWN), hierarchy.flat()
    palette = _palette(hierarchy.sizes[0])
    colours = palette[np.arange(flat.components) * len(palette) // flat.components]
    for i in range(steps):
        _ellipsoids(axes[0][i], flat, i, colours)
        _points(axes[1][i], drawn[i], "#33425b")
        for axis in (axes[0][i], axes[1][i]):
            _frame(axis, drawn[i])
        axes[0][i].set_title({0: "one shape", steps - 1: "another"}.get(i, ""), fontsize=12)
    return _save(figure, path, "Between the codes of two held-out shapes")


def registration(cases: list[tuple[Tensor, Tensor, Tensor]], off: Tensor, path: Path, shown: int = 4) -> Path:
    """Sources and targets before and after registration, trials spread over how well they went, best to worst."""
    plt = _pyplot()
    ranked = off.argsort()
    chosen = [int(ranked[round(q * (len(cases) - 1))]) for q in np.linspace(0.1, 0.95, shown)]
    figure, axes = plt.subplots(2, shown, figsize=(3.2 * shown, 6.6), squeeze=False)
    for i, k in enumerate(chosen):
        source, target, moved = cases[k]
        for axis, cloud in ((axes[0][i], source), (axes[1][i], moved)):
            _points(axis, target, "#b8bcc8")
            _points(axis, cloud, "#d1495b")
            _frame(axis, torch.cat([target, cloud]))
        axes[1][i].text(0.97, 0.03, f"{float(off[k]):.1f}° off", transform=axes[1][i].transAxes, ha="right")
    axes[0][0].set_ylabel("before", fontsize=12)
    axes[1][0].set_ylabel("after", fontsize=12)
    return _save(figure, path, "Registration: source (red) onto target (grey), different points of a held-out shape")


def _ellipsoids(axis: Any, mixture: Mixture, b: int, colours: NDArray[np.float64]) -> None:
    from matplotlib.patches import Ellipse

    flat = VIEW[:, :2]
    means = mixture.means[b].double().numpy() @ VIEW
    spreads = flat.T @ mixture.covariances()[b].double().numpy() @ flat
    weights = mixture.logits[b].double().softmax(-1).numpy() * mixture.components
    values, vectors = np.linalg.eigh(spreads)
    for k in np.argsort(means[:, 2]):  # near ones over far ones
        if weights[k] < 0.02:
            continue
        wide, high = 2 * SIGMAS * np.sqrt(values[k].clip(0))[::-1]
        angle = np.degrees(np.arctan2(vectors[k][1, 1], vectors[k][0, 1]))
        shape = Ellipse(tuple(means[k, :2]), wide, high, angle=angle)
        shape.set(facecolor=(*colours[k][:3], 0.55), edgecolor=(*(0.6 * colours[k][:3]), 0.9), linewidth=0.5)
        axis.add_patch(shape)


def _points(axis: Any, cloud: Tensor, colour: Any) -> None:
    seen = project(cloud.numpy())
    order = np.argsort(seen[:, 2])
    colours = colour[order] if isinstance(colour, np.ndarray) else colour
    size = 5.0 * min(1.0, (1024 / len(cloud)) ** 0.5)
    axis.scatter(seen[order, 0], seen[order, 1], s=size, c=colours, linewidths=0)


def _frame(axis: Any, cloud: Tensor) -> None:
    seen = project(cloud.numpy())[:, :2]
    low, high = seen.min(0), seen.max(0)
    (x, y), half = (low + high) / 2, float((high - low).max()) * 0.58
    axis.set(xlim=(x - half, x + half), ylim=(y - half, y + half), xticks=[], yticks=[], aspect="equal")
    axis.set_facecolor("#f6f6f8")
    for spine in axis.spines.values():
        spine.set_visible(False)


def _palette(count: int) -> NDArray[np.float64]:
    from matplotlib import colormaps

    return np.array([colormaps["tab10"](i % 10) for i in range(count)])


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg", force=False)
    from matplotlib import pyplot

    return pyplot


def _save(figure: Any, path: Path, title: str) -> Path:
    figure.suptitle(title, fontsize=13)
    figure.set_layout_engine("constrained")
    figure.savefig(path, dpi=110, facecolor="white")
    _pyplot().close(figure)
    return path
