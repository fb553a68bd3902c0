"""Pictures of point clouds: a projection, grids of clouds in colour, errors, spacing, and histograms of distances.

matplotlib is imported when a picture is drawn. Figures belong to no window and to no global state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from apml_plugin.functional import nearest_neighbours

INK, MUTED, GROUND = "#222222", "#6b6b73", "#f4f4f6"
NEIGHBOUR = 8
"""`spacing` is the distance to this neighbour: small where points clump, large where they are thin."""
FULL = 0.1
"""Relative errors from this share of the true shape's size on have the last colour of the scale."""
LIMIT = 16384
"""Of larger clouds a fixed sample is drawn: a picture shows no more."""
BINS = 48

Array = NDArray[Any]
Frame = tuple[float, float, float]
"""Centre (x, y) and half side of the square that is shown."""


class Sample(NamedTuple):
    """Clouds (n, 3) of one sample: what a model was given, what it predicted, and the truth."""

    inputs: Tensor | None
    pred: Tensor
    gt: Tensor


def new_figure(wide: float, high: float, **options: Any) -> Any:
    """A figure of that many inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(wide, high), dpi=100, facecolor="white", **options)
    FigureCanvasAgg(figure)
    return figure


def to_image(figure: Any) -> NDArray[np.uint8]:
    """(height, width, 3) uint8, red first: what ``Visualizer.add_image`` takes."""
    figure.canvas.draw()
    return np.ascontiguousarray(np.asarray(figure.canvas.buffer_rgba())[..., :3])


def project(cloud: Array, up: str = "y") -> NDArray[np.float64]:
    """(n, 3): right, up and towards the viewer, seen from the front, the right and a little above.

    up: the axis that points up: x, y (ShapeNet) or z (scans). Axes are rotated, so nothing is mirrored.
    """
    turn, tip = np.deg2rad(38), np.deg2rad(24)
    x, y, z = np.roll(np.asarray(cloud)[:, :3], {"x": 1, "y": 0, "z": -1}[up], axis=1).astype(np.float64).T
    right, front = np.cos(turn) * x - np.sin(turn) * z, np.sin(turn) * x + np.cos(turn) * z
    return np.stack([right, np.cos(tip) * y - np.sin(tip) * front, np.sin(tip) * y + np.cos(tip) * front], 1)


def frame_of(cloud: Array, up: str = "y", margin: float = 0.6) -> Frame:
    """The square around a projected cloud; its half side is ``margin`` times the longer side of the bounding box."""
    flat = project(cloud, up)[:, :2]
    low, high = flat.min(0), flat.max(0)
    x, y = (low + high) / 2
    return float(x), float(y), float((high - low).max()) * margin or 1.0


def set_frame(axis: Any, frame: Frame) -> None:
    """Shows the square ``frame`` on a plain ground without ticks."""
    x, y, half = frame
    axis.set(xlim=(x - half, x + half), ylim=(y - half, y + half), xticks=[], yticks=[], aspect="equal")
    axis.set_facecolor(GROUND)
    for spine in axis.spines.values():
        spine.set_visible(False)


def scatter(
    axis: Any, cloud: Array, frame: Frame | None, colours: Any = "#55555e", up: str = "y", size: float = 7.0
) -> int:
    """Draws a cloud, near points over far ones, and returns how many points lie outside ``frame``.

    colours: one colour, or one for each point. frame: None leaves the axis as it is.
    """
    flat = project(cloud, up)
    outside = 0 if frame is None else int((np.abs(flat[:, :2] - frame[:2]).max(1, initial=0) > frame[2]).sum())
    order = np.argsort(flat[:, 2])
    if len(order) > LIMIT:
        order = order[np.sort(np.random.default_rng(0).choice(len(order), LIMIT, replace=False))]
    each = colours if isinstance(colours, str) else np.asarray(colours)[order]
    area = size * min(1.0, (1024 / max(len(order), 1)) ** 0.5)
    axis.scatter(flat[order, 0], flat[order, 1], s=area, c=each, linewidths=0)
    if frame is not None:
        set_frame(axis, frame)
    return outside


def grid(
    rows: int, columns: Sequence[str], title: str = "", cell: float = 2.7, labels: Iterable[str] = ()
) -> tuple[Any, Array, Any]:
    """(figure, axes (rows, columns), axis of a colour bar below): square cells, headings above, labels on the left."""
    head, foot, gap = 0.75, 0.8, 0.04
    wide, high = cell * len(columns), cell * rows + head + foot
    figure = new_figure(wide, high)
    figure.text(0.5, 1 - 0.22 / high, title, ha="center", va="center", fontsize=13, color=INK)
    axes = np.empty((rows, len(columns)), object)
    for r, c in np.ndindex(axes.shape):
        left, bottom, side = c * cell + gap, high - head - (r + 1) * cell + gap, cell - 2 * gap
        axes[r, c] = figure.add_axes((left / wide, bottom / high, side / wide, side / high))
    for axis, heading in zip(axes[0], columns, strict=True):
        axis.set_title(heading, fontsize=11, color=INK, pad=4)
    for axis, label in zip(axes[:, 0], labels, strict=False):
        axis.text(0.03, 0.97, label, transform=axis.transAxes, va="top", fontsize=10, color=INK)
    return figure, axes, figure.add_axes((0.3, 0.5 / high, 0.4, 0.12 / high))


def draw_errors(
    samples: Sequence[Sample], title: str = "", up: str = "y", labels: Sequence[str] = (), relative: bool = True
) -> Any:
    """A figure with a row for each sample: the input (if there is one), the prediction, the ground truth.

    Colour is error: a predicted point's distance to the truth (what is in the wrong place), a true point's distance to
    the prediction (what is missing). With ``relative`` the scale is a share of the true shape's size and the same in
    every picture. Otherwise it is in the unit of the coordinates, up to the 99th percentile of what is drawn.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    whole = all(sample.inputs is not None for sample in samples)
    columns = ["input"] * whole + ["prediction", "ground truth"]
    figure, axes, bar = grid(len(samples), columns, title, 2.7 if whole else 3.6, labels)
    sizes = [_size(sample.gt) if relative else 1.0 for sample in samples]
    errors = [
        (_distances(s.pred, s.gt) / size, _distances(s.gt, s.pred) / size)
        for s, size in zip(samples, sizes, strict=True)
    ]
    top = FULL if relative else float(np.quantile(np.concatenate([e for pair in errors for e in pair]), 0.99)) or 1.0
    # Both ends of the colour map are too dark to be told apart.
    colours = ListedColormap(colormaps["turbo"](np.linspace(0.1, 0.93, 256)))
    paint = ScalarMappable(Normalize(0.0, top), colours)
    for row, sample, (pred_error, gt_error) in zip(axes, samples, errors, strict=True):
        frame = frame_of(sample.gt.cpu().numpy(), up, 0.68)
        cells = [(sample.inputs, None)] * whole + [(sample.pred, pred_error), (sample.gt, gt_error)]
        for axis, (cloud, error) in zip(row, cells, strict=True):
            assert cloud is not None
            painted = "#55555e" if error is None else paint.to_rgba(error)
            outside = scatter(axis, cloud.cpu().numpy(), frame, painted, up)
            note = f"{len(cloud):,} points"
            if error is not None and len(error):
                note += f", mean {100 * error.mean():.1f} %" if relative else f", mean {error.mean():.3g}"
            note += f", {outside:,} outside" if outside else ""
            axis.text(0.03, 0.03, note, transform=axis.transAxes, fontsize=8, color=MUTED)
    drawn = figure.colorbar(paint, cax=bar, orientation="horizontal", extend="max")
    drawn.ax.tick_params(labelsize=8)
    if relative:
        drawn.ax.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    unit = "in % of the shape's size" if relative else "in the unit of the coordinates"
    drawn.set_label(f"distance to the nearest point of the other cloud, {unit}", fontsize=8)
    return figure


def _size(gt: Tensor) -> float:
    """The longest side of the bounding box."""
    return float((gt.amax(0) - gt.amin(0)).max()) or 1.0


def _distances(cloud: Tensor, other: Tensor) -> NDArray[np.float64]:
    """(n,) distance from each point to the nearest of the other cloud."""
    if not len(other):
        return np.full(len(cloud), np.inf)
    return nearest_neighbours(cloud, other)[0].double().cpu().numpy()


def spacing(cloud: Array) -> NDArray[np.float64]:
    """(n,) distance from each point to its 8th neighbour."""
    return cKDTree(cloud).query(cloud, k=[min(NEIGHBOUR, len(cloud) - 1) + 1])[0][:, 0]


def spacing_paint(truths: Iterable[Array], figure: Any, bar: Any) -> Any:
    """Colours for `spacing`, relative to what is typical of the true clouds, with their colour bar drawn in ``bar``."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm

    typical = float(np.median(np.concatenate([spacing(truth) for truth in truths])))
    paint = ScalarMappable(LogNorm(typical / 5, typical * 3), "turbo_r")
    drawn = figure.colorbar(paint, cax=bar, orientation="horizontal")
    drawn.set_ticks(
        [typical / 4, typical / 2, typical, typical * 2], labels=["¼ (clumped)", "½", "as the truth", "2 (thin)"]
    )
    drawn.minorticks_off()
    drawn.ax.tick_params(labelsize=8)
    drawn.set_label(f"distance to the {NEIGHBOUR}th neighbour", fontsize=8)
    return paint


def draw_histogram(
    edges: NDArray[np.float64],
    counts: NDArray[np.float64],
    when: str,
    first: tuple[str, NDArray[np.float64]],
    numbers: Mapping[str, float],
) -> Any:
    """A figure of matched distances: the histogram now, the outline of the first one, and ``numbers`` as lines."""
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = new_figure(7.2, 4.0)
    axis = figure.add_axes((0.095, 0.15, 0.875, 0.73))
    axis.stairs(100 * counts, edges, fill=True, color="#2b6cb0", alpha=0.85, label=when)
    if first[0] != when:
        axis.stairs(100 * first[1], edges, color="#c05621", linewidth=1.4, label=first[0])
    for (name, value), style in zip(numbers.items(), ("-", "--", ":"), strict=False):
        axis.axvline(max(value, edges[0]), color=INK, linewidth=1.0, linestyle=style, label=f"{name} {value:.4g}")
    axis.set(xscale="log", xlim=(edges[0], edges[-1]), ylim=(0, 100 * max(counts.max(), first[1].max()) * 1.22))
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel(
        "distance of matched points (unit of the coordinates; the end bins hold what is beyond)", fontsize=9
    )
    axis.set_ylabel("% of the matched mass", fontsize=9)
    axis.tick_params(labelsize=8, colors=MUTED)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(loc="upper left", fontsize=8, frameon=False, ncols=2)
    axis.set_title(f"matched distances, {when}", fontsize=11, color=INK, loc="left")
    return figure


def histogram_edges(distances: Tensor, low_quantile: float) -> NDArray[np.float64]:
    """Edges of logarithmic bins, with room on the left, where training moves the distances to."""
    top = float(distances.max()) or 1.0
    return np.geomspace(min(max(low_quantile / 4, top / 1000), top / 10), top * 1.5, BINS + 1)


def histogram(distances: Tensor, weights: Tensor, edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """The weight in each bin. Distances beyond the edges count in the end bins, so that no mass is lost."""
    clipped = np.clip(distances.cpu().numpy(), edges[0], edges[-1])
    return np.histogram(clipped, bins=edges, weights=weights.cpu().numpy())[0]


def save(figure: Any, path: Path, title: str = "") -> Path:
    """Writes the figure as a PNG and returns its path."""
    if title:
        figure.suptitle(title, fontsize=13)
    figure.savefig(path, dpi=110, facecolor="white", format="png")
    return path
