"""Input, prediction and ground truth side by side: what is in the wrong place, and what is missing."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from apml_plugin.functional import nearest_neighbours
from apml_plugin.studies.canvas import GROUND, INK, MUTED, new_figure, project, to_image

COLUMNS = ("input", "prediction", "ground truth")
COLOURS = ("turbo", 0.1, 0.93)
"""A colour map and the part of it in use: without the dark ends, which look alike."""
FULL = 0.1
"""Distances from this share of the true shape's size on have the last colour; the same at every step."""


class Seen(NamedTuple):
    """One sample: clouds (n, 3)."""

    inputs: Tensor
    pred: Tensor
    gt: Tensor


def draw(seen: list[Seen], title: str, up: str = "y") -> NDArray[np.uint8]:
    """The picture, (height, width, 3) uint8: a row for each sample.

    Colour is error: a predicted point's distance to the truth (what is in the wrong place), a true point's distance to
    the prediction (what is missing). The scale is that of every other picture. up: x, y (ShapeNet) or z (scans).
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    cell, head, foot = 2.7, 0.75, 0.8
    wide, high = cell * len(COLUMNS), cell * len(seen) + head + foot
    figure = new_figure(wide, high)
    figure.text(0.5, 1 - 0.22 / high, title, ha="center", va="center", fontsize=13, color=INK)
    name, first, last = COLOURS
    paint = ScalarMappable(Normalize(0.0, FULL), ListedColormap(colormaps[name](np.linspace(first, last, 256))))
    for row, sample in enumerate(seen):
        frame, size = _frame(sample, up)
        errors = (None, _apart(sample.pred, sample.gt) / size, _apart(sample.gt, sample.pred) / size)
        for column, (cloud, error) in enumerate(zip(sample, errors, strict=True)):
            left, bottom = column * cell / wide, (high - head - (row + 1) * cell) / high
            gap = 0.04
            axis = figure.add_axes(
                (left + gap / wide, bottom + gap / high, (cell - 2 * gap) / wide, (cell - 2 * gap) / high)
            )
            outside = _scatter(axis, cloud.cpu().numpy(), error, frame, paint, up)
            note = f"{len(cloud):,} points" + (
                "" if error is None or not len(error) else f", mean {100 * error.mean():.1f} %"
            )
            note += f", {outside:,} outside" if outside else ""
            axis.text(0.03, 0.03, note, transform=axis.transAxes, fontsize=8, color=MUTED)
            if row == 0:
                axis.set_title(COLUMNS[column], fontsize=11, color=INK, pad=4)
    bar = figure.add_axes((0.3, 0.5 / high, 0.4, 0.12 / high))
    colours = figure.colorbar(paint, cax=bar, orientation="horizontal", extend="max")
    colours.ax.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    colours.ax.tick_params(labelsize=8)
    colours.set_label("distance to the nearest point of the other cloud, in % of the shape's size", fontsize=8)
    return to_image(figure)


def _apart(cloud: Tensor, other: Tensor) -> NDArray[np.float64]:
    """(n,) distance from each point to the nearest of the other cloud."""
    if not len(other):
        return np.full(len(cloud), np.inf)
    return nearest_neighbours(cloud, other)[0].double().cpu().numpy()


def _flat(cloud: NDArray[np.float32], up: str) -> NDArray[np.float64]:
    # Turned, not mirrored: the axes keep their order.
    return project(np.roll(cloud[:, :3], {"x": 1, "y": 0, "z": -1}[up], axis=1))


def _frame(sample: Seen, up: str) -> tuple[tuple[float, float, float], float]:
    """Centre and half side of the square that shows the truth; the truth's size, the longest side of its box."""
    gt = sample.gt.cpu().numpy()
    flat = _flat(gt, up)[:, :2]
    low, high = flat.min(0), flat.max(0)
    x, y = (low + high) / 2
    size = float((gt.max(0) - gt.min(0)).max()) or 1.0
    return (float(x), float(y), float((high - low).max()) * 0.68 or 1.0), size


def _scatter(
    axis: Any, cloud: NDArray[np.float32], error: Any, frame: tuple[float, float, float], paint: Any, up: str
) -> int:
    """Draws one cloud; how many of its points lie outside the square."""
    seen = _flat(cloud, up)
    order = np.argsort(seen[:, 2])  # near points over far ones
    colours = "#55555e" if error is None else paint.to_rgba(error[order])
    size = 7.0 * min(1.0, (1024 / max(len(cloud), 1)) ** 0.5)
    axis.scatter(seen[order, 0], seen[order, 1], s=size, linewidths=0, c=colours)
    x, y, half = frame
    axis.set(xlim=(x - half, x + half), ylim=(y - half, y + half), xticks=[], yticks=[], facecolor=GROUND)
    for spine in axis.spines.values():
        spine.set_visible(False)
    return int((np.abs(seen[:, :2] - (x, y)).max(axis=1, initial=0) > half).sum())
