"""Hooks: the epoch told to losses, pictures of predictions, distances of matched points."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import numpy as np
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from numpy.typing import NDArray

from apml_plugin.errors import LossArgumentError
from apml_plugin.hosts.mmengine.watching import WatchingHook
from apml_plugin.matching import Settings
from apml_plugin.matching.backends import BACKENDS
from apml_plugin.matching.settings import one_of
from apml_plugin.registry import set_epoch
from apml_plugin.studies import distances, predictions
from apml_plugin.studies.predictions import Seen

QUANTILES = {"median": 0.5, "p95": 0.95}


class LossEpochHook(Hook):
    """Tells every Schedule inside the model which epoch begins, counted from 0.

    For models of one's own: ``custom_hooks = [dict(type='LossEpochHook')]``. CompletionModel asks by itself.
    """

    def before_train_epoch(self, runner: Runner) -> None:
        set_epoch(runner.model, runner.epoch)


class PredictionPictureHook(WatchingHook):
    """Draws input, prediction and ground truth side by side, a row for each sample, as the image ``predictions``.

    Colour is error: a predicted point's distance to the truth (what is in the wrong place), a true point's
    distance to the prediction (what is missing). The scale is the same at every step.

    Args:
        up: the axis that points up, ``"x"``, ``"y"`` (ShapeNet) or ``"z"`` (scans).
        options: as :class:`WatchingHook`.
    """

    def __init__(self, up: str = "y", **options: Any) -> None:
        super().__init__(**options)
        if up not in ("x", "y", "z"):
            raise LossArgumentError(f"up={up!r} must be one of x, y, z")
        self.up = up

    def watch(self, runner: Runner, seen: list[Seen], step: int) -> None:
        runner.visualizer.add_image("predictions", predictions.draw(seen, self.when(step), self.up), step=step)


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
        apart, weights = distances.matched_distances(seen, self.plan)
        if not len(apart):
            print_log(
                "MatchedDistanceHook: no point is matched in these samples", logger="current", level=logging.WARNING
            )
            return
        if self._edges is None:
            self._edges = distances.bins_for(apart, weights)
        counts = distances.histogram(apart, weights, self._edges)
        self._first = self._first or (self.when(step), counts)
        numbers = {"mean": float(apart @ weights)}
        numbers |= {name: distances.quantile(apart, weights, q) for name, q in QUANTILES.items()}
        for name, value in numbers.items():  # one by one: backends disagree on what a dict of them may hold
            runner.visualizer.add_scalar(f"matched_distance/{name}", value, step=step)
        picture = distances.draw(self._edges, counts, self.when(step), self._first, numbers)
        runner.visualizer.add_image("matched_distance", picture, step=step)
        for backend in getattr(runner.visualizer, "_vis_backends", {}).values():
            if hasattr(backend.experiment, "add_histogram_raw"):
                backend.experiment.add_histogram_raw(
                    "matched_distance",
                    min=float(apart.min()),
                    max=float(apart.max()),
                    num=float(weights.sum()),
                    sum=numbers["mean"],
                    sum_squares=float(apart**2 @ weights),
                    bucket_limits=self._edges[1:].tolist(),
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
