"""The demo's picture: what a network saw, what was true, and what each loss made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from apml_plugin.studies.canvas import project

NEIGHBOUR = 8
"""Colour shows the distance to this neighbour: small where points clump, large where they are thin."""


def draw(
    rows: list[tuple[str, list[tuple[NDArray[np.float32], str]]]], columns: list[str], title: str, path: Path
) -> None:
    """One row a shape (label, clouds (n, 3) with y up, a note each), one column a kind of cloud, one colour bar."""
    import matplotlib

    matplotlib.use("Agg", force=False)
    from matplotlib import pyplot as plt
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm

    # The truth sets the scale: a fifth of its typical spacing is a clump, thrice is a hole.
    usual = float(np.median(np.concatenate([spacing(clouds[1][0]) for _, clouds in rows])))
    norm = LogNorm(usual / 5, usual * 3)
    wide, high = 3.6 * len(columns), 3.3 * len(rows)
    figure = plt.figure(figsize=(wide, high + 1.3))
    grid = figure.add_gridspec(
        len(rows), len(columns), left=0.03, right=0.99, bottom=0.95 / (high + 1.3), top=1 - 0.8 / (high + 1.3)
    )
    grid.update(wspace=0.02, hspace=0.02)
    for r, (label, clouds) in enumerate(rows):
        frame = _frame(clouds[1][0])
        for c, (heading, (cloud, note)) in enumerate(zip(columns, clouds, strict=True)):
            axis: Any = figure.add_subplot(grid[r, c])
            _scatter(axis, cloud, frame, norm)
            axis.text(0.97, 0.03, note, transform=axis.transAxes, ha="right", fontsize=11, color="#333333")
            if r == 0:
                axis.set_title(heading, fontsize=13)
            if c == 0:
                axis.set_ylabel(label, fontsize=12)
    bar = figure.add_axes((0.27, 0.52 / (high + 1.3), 0.46, 0.14 / (high + 1.3)))
    colours = figure.colorbar(ScalarMappable(norm, "turbo_r"), cax=bar, orientation="horizontal")
    ticks = [usual / 4, usual / 2, usual, usual * 2]
    colours.set_ticks(ticks, labels=["¼ (clumped)", "½", "typical of the truth", "2 (thin)"])
    colours.minorticks_off()
    colours.set_label(f"distance to the {NEIGHBOUR}th neighbour", fontsize=10)
    figure.suptitle(title, fontsize=14)
    figure.savefig(path, dpi=110, facecolor="white")
    plt.close(figure)


def spacing(cloud: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n,) distance from each point to its 8th neighbour."""
    return cKDTree(cloud).query(cloud, k=[min(NEIGHBOUR, len(cloud) - 1) + 1])[0][:, 0]


def _frame(cloud: NDArray[np.float32]) -> tuple[NDArray[np.float64], float]:
    flat = project(cloud)[:, :2]
    low, high = flat.min(0), flat.max(0)
    return (low + high) / 2, float((high - low).max()) * 0.6


def _scatter(axis: Any, cloud: NDArray[np.float32], frame: tuple[NDArray[np.float64], float], norm: Any) -> None:
    seen, gaps = project(cloud), spacing(cloud)
    order = np.argsort(seen[:, 2])  # near points over far ones
    (x, y), half = frame
    size = 9.0 * min(1.0, (1024 / len(cloud)) ** 0.5)
    axis.scatter(seen[order, 0], seen[order, 1], c=gaps[order], s=size, cmap="turbo_r", norm=norm, linewidths=0)
    axis.set(xlim=(x - half, x + half), ylim=(y - half, y + half), xticks=[], yticks=[], aspect="equal")
    axis.set_facecolor("#f4f4f6")
    for spine in axis.spines.values():
        spine.set_visible(False)
