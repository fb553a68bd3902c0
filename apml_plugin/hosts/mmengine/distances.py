"""How far apart matched points are: the histogram behind a mean loss, for the visualizer's backends."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import numpy as np
from mmengine.logging import print_log
from mmengine.runner import Runner
from numpy.typing import NDArray

from apml_plugin.errors import LossArgumentError
from apml_plugin.functional import matching_plan
from apml_plugin.hosts.mmengine.arguments import names_arguments
from apml_plugin.hosts.mmengine.canvas import INK, MUTED, new_figure, to_image
from apml_plugin.hosts.mmengine.watching import Seen, WatchingHook
from apml_plugin.matching import Settings
from apml_plugin.matching.backends import BACKENDS
from apml_plugin.matching.settings import one_of

BINS = 48
QUANTILES = {"median": 0.5, "p95": 0.95}
NOW, FIRST = "#2b6cb0", "#c05621"


@names_arguments
class MatchedDistanceHook(WatchingHook):
    """Draws the distances of matched points, each counted as much as the plan matches it.

    Gives the visualizer the image ``matched_distance`` and the numbers ``matched_distance/mean``, ``/median`` and
    ``/p95``, and TensorBoard a histogram of the same name besides. The mean is APML's loss with
    ``reduction='mean'``, of clouds of one size.

    Args:
        plan: arguments of the matching (``p_min``, ``threshold``, ``iterations``, ``eps``, ``ties``, ``backend``).
        options: as :class:`WatchingHook`.
    """

    def __init__(self, plan: Mapping[str, Any] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.plan = _plan_arguments(plan or {})
        self._edges: NDArray[np.float64] | None = None
        self._first: tuple[str, NDArray[np.float64]] | None = None

    def watch(self, runner: Runner, seen: list[Seen], step: int) -> None:
        distances, weights = matched_distances(seen, self.plan)
        if not len(distances):
            print_log(
                "MatchedDistanceHook: no point is matched in these samples", logger="current", level=logging.WARNING
            )
            return
        when = f"{'epoch' if self.by_epoch else 'iteration'} {step}"
        if self._edges is None:
            self._edges = _edges(distances, weights)
        counts = _histogram(distances, weights, self._edges)
        self._first = self._first or (when, counts)
        numbers = {"mean": float(distances @ weights)}
        numbers |= {name: quantile(distances, weights, q) for name, q in QUANTILES.items()}
        for name, value in numbers.items():  # one by one: backends disagree on what a dict of them may hold
            runner.visualizer.add_scalar(f"matched_distance/{name}", value, step=step)
        picture = draw(self._edges, counts, when, self._first, numbers)
        runner.visualizer.add_image("matched_distance", picture, step=step)
        for backend in getattr(runner.visualizer, "_vis_backends", {}).values():
            if hasattr(backend.experiment, "add_histogram_raw"):
                _to_tensorboard(backend.experiment, distances, weights, counts, self._edges, step)


def matched_distances(seen: list[Seen], plan: Mapping[str, Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
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


def _edges(distances: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bins with room on the left, where training moves the distances to."""
    top = float(distances.max()) or 1.0
    low = quantile(distances, weights, 0.01) / 4
    return np.geomspace(min(max(low, top / 1000), top / 10), top * 1.5, BINS + 1)


def _histogram(
    distances: NDArray[np.float64], weights: NDArray[np.float64], edges: NDArray[np.float64]
) -> NDArray[np.float64]:
    # Beyond the edges, just inside of them: no mass is lost.
    return np.histogram(np.clip(distances, edges[0], edges[-1]), bins=edges, weights=weights)[0]


def _to_tensorboard(
    writer: Any,
    distances: NDArray[np.float64],
    weights: NDArray[np.float64],
    counts: NDArray[np.float64],
    edges: NDArray[np.float64],
    step: int,
) -> None:
    writer.add_histogram_raw(
        "matched_distance",
        min=float(distances.min()),
        max=float(distances.max()),
        num=float(weights.sum()),
        sum=float(distances @ weights),
        sum_squares=float(distances**2 @ weights),
        bucket_limits=edges[1:].tolist(),
        bucket_counts=counts.tolist(),
        global_step=step,
    )


def _plan_arguments(plan: Mapping[str, Any]) -> dict[str, Any]:
    backend = one_of("backend", plan.get("backend", "auto"), BACKENDS)
    given = {name: value for name, value in plan.items() if name != "backend"}
    known = [field.name for field in fields(Settings)]
    if strange := [name for name in given if name not in known]:
        raise LossArgumentError(f"plan: {strange[0]!r} is none of {', '.join([*known, 'backend'])}")
    return {**asdict(Settings(**given)), "backend": backend}
