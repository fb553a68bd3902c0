"""Pictures of mixtures: ellipsoids by level, interpolation between two shapes, registrations before and after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from apml_plugin import drawing
from apml_plugin.losses.mixture import Hierarchy, Mixture
from apml_plugin.models.pointgmm import mixture_to_points

VIEW = drawing.project(np.eye(3, dtype=np.float32))
"""The linear projection: a row for each axis (right, up, towards the viewer)."""
SIGMAS = 1.5
SHOWN = 2048


def levels(hierarchy: Hierarchy, clouds: Tensor, path: Path, rows: int = 3) -> Path:
    """A row for each shape: its cloud, the ellipsoids of every level, a sample; in colours of the first level."""
    count, rows, tops = len(hierarchy.levels), min(rows, len(clouds)), hierarchy.sizes[0]
    figure = drawing.new_figure(2.9 * (count + 2), 3.0 * rows, layout="constrained")
    axes = figure.subplots(rows, count + 2, squeeze=False)
    sample, palette = mixture_to_points(hierarchy, SHOWN), _palette(tops)
    for r, row in enumerate(axes):
        cloud = clouds[r, :SHOWN].numpy()
        frame = drawing.frame_of(cloud, margin=0.58)
        drawing.scatter(row[0], cloud, frame, "#555566", size=5)
        for i, (axis, size) in enumerate(zip(row[1:-1], hierarchy.sizes, strict=True)):
            _ellipsoids(axis, hierarchy.flat(i), r, palette[np.arange(size) * tops // size])
            drawing.set_frame(axis, frame)
        leaf = torch.cdist(sample[r], hierarchy.levels[-1].means[r]).argmin(-1).numpy()
        drawing.scatter(row[-1], sample[r].numpy(), frame, palette[leaf * tops // hierarchy.sizes[-1]], size=5)
    titles = ["a held-out shape", *(f"{size} Gaussians" for size in hierarchy.sizes), f"{SHOWN} sampled points"]
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=12)
    return drawing.save(figure, path, f"PointGMM on shapes it was not trained on (ellipsoids at {SIGMAS} sigma)")


def interpolation(hierarchy: Hierarchy, path: Path) -> Path:
    """A batch of mixtures between two shapes: the ellipsoids of the last level, and sampled points."""
    steps, sample, flat = len(hierarchy), mixture_to_points(hierarchy, SHOWN), hierarchy.flat()
    figure = drawing.new_figure(2.6 * steps, 5.4, layout="constrained")
    axes = figure.subplots(2, steps, squeeze=False)
    palette = _palette(hierarchy.sizes[0])
    colours = palette[np.arange(flat.components) * len(palette) // flat.components]
    for i in range(steps):
        frame = drawing.frame_of(sample[i].numpy(), margin=0.58)
        _ellipsoids(axes[0][i], flat, i, colours)
        drawing.set_frame(axes[0][i], frame)
        drawing.scatter(axes[1][i], sample[i].numpy(), frame, "#33425b", size=5)
        axes[0][i].set_title({0: "one shape", steps - 1: "another"}.get(i, ""), fontsize=12)
    return drawing.save(figure, path, "Between the codes of two held-out shapes")


def registration(cases: list[tuple[Tensor, Tensor, Tensor]], off: Tensor, path: Path, shown: int = 4) -> Path:
    """Sources and targets before and after registration, for trials at even ranks from good to bad."""
    ranked = off.argsort()
    chosen = [int(ranked[round(q * (len(cases) - 1))]) for q in np.linspace(0.1, 0.95, shown)]
    figure = drawing.new_figure(3.2 * shown, 6.6, layout="constrained")
    axes = figure.subplots(2, shown, squeeze=False)
    for column, k in zip(axes.T, chosen, strict=True):
        source, target, moved = (cloud.numpy() for cloud in cases[k])
        for axis, cloud in zip(column, (source, moved), strict=True):
            drawing.scatter(axis, target, None, "#b8bcc8", size=5)
            drawing.scatter(axis, cloud, None, "#d1495b", size=5)
            drawing.set_frame(axis, drawing.frame_of(np.concatenate([target, cloud]), margin=0.58))
        column[1].text(0.97, 0.03, f"{float(off[k]):.1f}° off", transform=column[1].transAxes, ha="right")
    axes[0][0].set_ylabel("before", fontsize=12)
    axes[1][0].set_ylabel("after", fontsize=12)
    title = "Registration: source (red) onto target (grey), different points of a held-out shape"
    return drawing.save(figure, path, title)


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


def _palette(count: int) -> NDArray[np.float64]:
    from matplotlib import colormaps

    return np.array([colormaps["tab10"](i % 10) for i in range(count)])
