"""The table of all metrics. Evaluation, comparison, demos, MMEngine's metric and hosts' ``metrics:`` read it.

To add a metric, write its function (see `pairs`) and add one entry to `METRICS`, here or in the function's file.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from apml_plugin.arguments import did_you_mean
from apml_plugin.errors import LossArgumentError

from .inputs import Pair
from .matched import percentile
from .pairs import cd_l1, cd_l2, dcd, emd, f_score, hausdorff, uniformity
from .sets import coverage, coverage_of, jsd, minimum_matching_distance, mmd_of, pairwise_distances


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: in YAML files, MMEngine configs and :class:`apml_plugin.metrics.Accumulator`.
        heading: in tables.
        function: of (pred, gt), or of two sets of clouds with ``of_sets``.
        unit: ``"length"`` or ``"length²"`` in terms of the coordinates' unit; empty where there is none.
        factor: by which tables multiply values that have a unit, as PoinTr's tables do.
        higher_is_better: otherwise lower is.
        of_sets: it compares all predictions, as one set, with all ground truths.
        of_distances: for metrics of sets that are computed from all pairs' distances (S, R): the function of these.
        options: arguments of the function that the name implies.
        in_reports: further arguments in reports, where clouds may differ in size and in range.
        aliases: other spellings, for `find`.
    """

    name: str
    heading: str
    function: Callable[..., Tensor]
    unit: str = ""
    factor: float = 1.0
    higher_is_better: bool = False
    of_sets: bool = False
    of_distances: Callable[[Tensor], Tensor] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    in_reports: Mapping[str, Any] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()

    @property
    def takes(self) -> list[str]:
        """Names of the function's arguments besides the clouds."""
        return list(inspect.signature(self.function).parameters)[2:]

    def of_pair(self, pair: Pair, scale: float | None = None) -> float:
        """The value of one `Pair` in reports, times the metric's factor (see `scaled`)."""
        value: float = self.function.of_pair(pair, **{**self.options, **self.in_reports})  # type: ignore[attr-defined]
        return float(self.scaled(value, scale))

    def scaled(self, value: Any, scale: float | None = None) -> Any:
        """``value`` times ``factor``; where the metric has a unit, ``scale`` replaces the factor."""
        return value * (self.factor if scale is None or not self.unit else scale)

    def in_reports_with(self, heading: str | None = None, **options: Any) -> Metric:
        """The same metric with other arguments in reports."""
        return replace(self, heading=heading or self.heading, in_reports={**self.in_reports, **options})


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("CDL1", "CD-L1", cd_l1, "length", 1000),
        Metric("CDL2", "CD-L2", cd_l2, "length²", 1000),
        Metric("EMD", "EMD", emd, "length", 1000, in_reports={"points": 1024}),
        Metric("F-Score", "F", f_score, higher_is_better=True, aliases=("F-Score@1%", "F1")),
        Metric("DCD", "DCD", dcd),
        Metric("Uniformity", "uniformity", uniformity),
        Metric("Hausdorff", "Hausdorff", hausdorff, "length", 1000),
        Metric("P50", "p50", percentile, "length", 1000, options={"q": 0.5}),
        Metric("P95", "p95", percentile, "length", 1000, options={"q": 0.95}),
        Metric("JSD", "JSD", jsd, of_sets=True, in_reports={"bounds": None}),
        Metric("Coverage", "coverage", coverage, higher_is_better=True, of_sets=True, of_distances=coverage_of),
        Metric("MMD", "MMD-CD-L2", minimum_matching_distance, "length²", 1000, of_sets=True, of_distances=mmd_of),
    )
}


def find(name: str) -> Metric:
    """The metric that ``name`` means: a name, heading or alias of the table, without regard to case and hyphens.

    ``p99`` is the 99th percentile of the distances to the nearest point; ``F@0.05`` and ``F@5%`` are F-scores at that
    threshold. Raises LossArgumentError for any other name; the error offers the nearest one.
    """
    key = _plain(name)
    for metric in METRICS.values():
        if key in map(_plain, (metric.name, metric.heading, *metric.aliases)):
            return metric
    if (match := re.fullmatch(r"p(\d+(?:\.\d*)?)", key)) and float(match[1]) <= 100:
        q = float(match[1]) / 100
        return replace(METRICS["P50"], name=f"P{match[1]}", heading=f"p{match[1]}", options={"q": q})
    if match := re.fullmatch(r"f(?:score)?@([\d.e]+)(%?)", key):
        threshold = float(match[1]) / (100 if match[2] else 1)
        return replace(METRICS["F-Score"], name=name, heading=name, options={"threshold": threshold})
    raise LossArgumentError(
        f"no metric is called {name!r}{did_you_mean(name, METRICS)} (there are {', '.join(METRICS)})"
    )


def measure_sets(
    metrics: Iterable[Metric], pred: Sequence[Tensor], gt: Sequence[Tensor], scale: float | None = None
) -> dict[str, float]:
    """Name: value in reports, of metrics of sets. The distances of all pairs are computed once, if they are needed."""
    distances = functools.cache(lambda: pairwise_distances(pred, gt))
    values = {}
    for metric in metrics:
        value = (
            metric.of_distances(distances()) if metric.of_distances else metric.function(pred, gt, **metric.in_reports)
        )
        values[metric.name] = float(metric.scaled(value, scale))
    return values


def _plain(name: str) -> str:
    return re.sub(r"[-_ ]", "", name).lower()
