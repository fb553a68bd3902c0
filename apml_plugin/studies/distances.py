"""How far apart matched points are: the histogram behind a mean loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apml_plugin.functional import matching_plan
from apml_plugin.studies.canvas import INK, MUTED, new_figure, to_image
from apml_plugin.studies.predictions import Seen

BINS = 48
NOW, FIRST = "#2b6cb0", "#c05621"


def matched_distances(seen: Sequence[Seen], plan: Mapping[str, Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distances of matched points over all samples, and their weights in the plans, which sum to 1."""
    distances, weights = [np.empty(0)], [np.empty(0)]
    for sample in seen:
        matches = matching_plan(sample.pred[None], sample.gt[None], **plan)
        _, i, j = matches.indices()
        apart = (sample.pred.double()[i] - sample.gt.double()[j]).norm(dim=-1)
        distances.append(apart.cpu().numpy())
        weights.append(matches.values().double().cpu().numpy())
    total = sum(w.sum() for w in weights) or 1.0
    return np.concatenate(distances), np.concatenate(weights) / total


def quantile(distances: NDArray[np.float64], weights: NDArray[np.float64], q: float) -> float:
    """The least distance within which the share ``q`` of all weight lies."""
    order = np.argsort(distances)
    reached = np.searchsorted(np.cumsum(weights[order]), q * weights.sum())
    return float(distances[order[min(int(reached), len(order) - 1)]])


def draw(
    edges: NDArray[np.float64],
    counts: NDArray[np.float64],
    when: str,
    first: tuple[str, NDArray[np.float64]],
    numbers: Mapping[str, float],
) -> NDArray[np.uint8]:
    """The picture, (height, width, 3) uint8: the histogram now, and the first one's outline behind it."""
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = new_figure(7.2, 4.0)
    axis = figure.add_axes((0.095, 0.15, 0.875, 0.73))
    axis.stairs(100 * counts, edges, fill=True, color=NOW, alpha=0.85, label=when)
    if first[0] != when:
        axis.stairs(100 * first[1], edges, color=FIRST, linewidth=1.4, label=first[0])
    top = 100 * max(counts.max(), first[1].max()) * 1.22
    styles = {"mean": "-", "median": "--", "p95": ":"}
    for name, value in numbers.items():
        axis.axvline(
            max(value, edges[0]), color=INK, linewidth=1.0, linestyle=styles[name], label=f"{name} {value:.4g}"
        )
    axis.set(xscale="log", xlim=(edges[0], edges[-1]), ylim=(0, top))
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel("distance of matched points (unit of the coordinates; the ends hold what lies beyond)", fontsize=9)
    axis.set_ylabel("% of the matched mass", fontsize=9)
    axis.tick_params(labelsize=8, colors=MUTED)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(loc="upper left", fontsize=8, frameon=False, ncols=2)
    axis.set_title(f"matched distances, {when}", fontsize=11, color=INK, loc="left")
    return to_image(figure)


def bins_for(distances: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bins with room on the left, where training moves the distances to."""
    top = float(distances.max()) or 1.0
    low = quantile(distances, weights, 0.01) / 4
    return np.geomspace(min(max(low, top / 1000), top / 10), top * 1.5, BINS + 1)


def histogram(
    distances: NDArray[np.float64], weights: NDArray[np.float64], edges: NDArray[np.float64]
) -> NDArray[np.float64]:
    # Beyond the edges, just inside of them: no mass is lost.
    return np.histogram(np.clip(distances, edges[0], edges[-1]), bins=edges, weights=weights)[0]
