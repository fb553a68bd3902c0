"""Where a prediction is wrong: each point coloured by its distance to the other cloud."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

POINTS = 6000
"""More points than this are drawn as a fixed sample: a picture shows no more."""

Drawn = tuple[str, NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def draw(pairs: Sequence[Drawn], path: Path) -> None:
    """One row a pair: (label, pred (N, 3), gt (M, 3), error of pred (N,), error of gt (M,)).

    On the left the prediction, red where it lies far from the truth (noise); on the right the truth, red where no
    predicted point is near (holes). One colour scale for all, in the unit of the coordinates.
    """
    import matplotlib

    matplotlib.use("Agg", force=False)
    from matplotlib import pyplot as plt
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    errors = np.concatenate([np.concatenate([a, b]) for _, _, _, a, b in pairs])
    norm = Normalize(0, max(float(np.quantile(errors, 0.99)), 1e-12))
    height = 3.4 * len(pairs)
    figure = plt.figure(figsize=(8.2, height + 1.2))
    grid = figure.add_gridspec(
        len(pairs), 2, left=0.05, right=0.98, bottom=0.85 / (height + 1.2), top=1 - 0.4 / (height + 1.2)
    )
    grid.update(wspace=0.02, hspace=0.04)
    for row, (label, pred, gt, pred_error, gt_error) in enumerate(pairs):
        # The frame is the truth's, a little wider: a single stray point must not shrink everything.
        centre = (gt.min(0) + gt.max(0)) / 2
        half = max(float(np.abs(gt - centre).max()), 1e-12) * 1.15
        outside = int((np.abs(pred - centre).max(1) > half).sum())
        for column, (cloud, error, title) in enumerate(
            (
                (pred, pred_error, "prediction: distance to the truth"),
                (gt, gt_error, "truth: distance to the prediction"),
            )
        ):
            axis: Any = figure.add_subplot(grid[row, column], projection="3d")
            _scatter(axis, cloud, error, centre, half, norm)
            if row == 0:
                axis.set_title(title, fontsize=10)
            if column == 0:
                note = f"\n{outside} points beyond the frame" if outside else ""
                axis.text2D(0.02, 0.98, label + note, transform=axis.transAxes, va="top", fontsize=9)
    bar = figure.add_axes((0.25, 0.45 / (height + 1.2), 0.5, 0.13 / (height + 1.2)))
    figure.colorbar(ScalarMappable(norm, "turbo"), cax=bar, orientation="horizontal", extend="max").set_label(
        "distance to the nearest point of the other cloud (unit of the coordinates)", fontsize=8
    )
    bar.tick_params(labelsize=8)
    figure.savefig(path, dpi=120, facecolor="white")
    plt.close(figure)


def _scatter(
    axis: Any,
    cloud: NDArray[np.float64],
    error: NDArray[np.float64],
    centre: NDArray[np.float64],
    half: float,
    norm: Any,
) -> None:
    if len(cloud) > POINTS:
        chosen = np.random.default_rng(0).choice(len(cloud), POINTS, replace=False)
        cloud, error = cloud[chosen], error[chosen]
    inside = np.abs(cloud - centre).max(1) <= half
    cloud, error = cloud[inside], error[inside]
    # y is up in this field's data sets.
    axis.scatter(
        cloud[:, 0], -cloud[:, 2], cloud[:, 1], c=error, s=48000 / POINTS / max(1, len(cloud) / 1500), norm=norm,
        cmap="turbo", linewidths=0, alpha=1, depthshade=False,
    )  # fmt: skip
    x, y, z = centre[0], -centre[2], centre[1]
    axis.set(xlim=(x - half, x + half), ylim=(y - half, y + half), zlim=(z - half, z + half))
    axis.set_box_aspect((1, 1, 1), zoom=1.6)
    axis.view_init(elev=20, azim=-60)
    axis.set_axis_off()
