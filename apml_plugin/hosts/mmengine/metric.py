"""What a completion is judged by, as an MMEngine metric."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from mmengine.evaluator import BaseMetric
from torch import Tensor

from apml_plugin.errors import LossArgumentError
from apml_plugin.matching.settings import number
from apml_plugin.metrics import cd_l1, cd_l2, dcd, f_score, jsd, matched_distance_quantiles, uniformity
from apml_plugin.metrics.emd import sampled_emd
from apml_plugin.metrics.sets import coverage_of, mmd_of, pairwise_distances
from apml_plugin.models.layers import positive

MEASURES: dict[str, Callable[[CompletionMetric, Tensor, Tensor], Any]] = {
    "CDL1": lambda self, pred, gt: self.scale * cd_l1(pred, gt),
    "CDL2": lambda self, pred, gt: self.scale * cd_l2(pred, gt),
    "F-Score": lambda self, pred, gt: f_score(pred, gt, self.f_threshold),
    "EMD": lambda self, pred, gt: self.scale * sampled_emd(pred, gt, self.emd_points),
    "Uniformity": lambda self, pred, gt: uniformity(pred, gt),
    "DCD": lambda self, pred, gt: dcd(pred, gt),
    "P50": lambda self, pred, gt: self.scale * matched_distance_quantiles(pred, gt, [0.5])[0],
    "P95": lambda self, pred, gt: self.scale * matched_distance_quantiles(pred, gt, [0.95])[0],
}
# Of sets, from the clouds and from a function that gives the distances of all pairs of them.
OF_SETS: dict[str, Callable[[CompletionMetric, list[Tensor], list[Tensor], Callable[[], Tensor]], Any]] = {
    "JSD": lambda self, pred, gt, apart: jsd(pred, gt, bounds=None),
    "Coverage": lambda self, pred, gt, apart: coverage_of(apart()),
    "MMD": lambda self, pred, gt, apart: self.scale * mmd_of(apart()),
}


class CompletionMetric(BaseMetric):
    """Means over the samples of what :mod:`apml_plugin.metrics` measures, logged as ``completion/CDL1`` and so on.

    Reads samples with ``pred`` (N, 3) and ``gt`` (M, 3), as CompletionModel predicts them.

    Args:
        measures: which of ``CDL1``, ``CDL2``, ``F-Score``, ``EMD``, ``Uniformity``, ``DCD``, ``P50`` and ``P95``
            (percentiles of the distances to the nearest point), or ``JSD``, ``Coverage``, ``MMD`` (CD-L2) of all
            predictions as one set against all truths, whose clouds are then kept until the end. Lower is better, but
            for F-Score and Coverage.
        scale: what CDL1, CDL2, EMD, P50, P95 and MMD are multiplied by; 1000 as in PoinTr's tables.
        f_threshold: distance below which the F-score counts a point as matched, in the unit of the coordinates.
        emd_points: the exact EMD is taken between this many points of each cloud (all, if there are fewer).
        collect_device, prefix, collect_dir: as for every MMEngine metric.

    Raises:
        LossArgumentError, LossValueError: an argument of the wrong type or out of range.
    """

    default_prefix = "completion"
    scale: float
    f_threshold: float
    emd_points: int

    def __init__(
        self,
        measures: Sequence[str] = tuple(MEASURES)[:4],
        scale: float = 1000.0,
        f_threshold: float = 0.01,
        emd_points: int = 1024,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if isinstance(measures, str) or not measures or not set(measures) <= {*MEASURES, *OF_SETS}:
            known = ", ".join([*MEASURES, *OF_SETS])
            raise LossArgumentError(f"measures={measures!r} must be a list of one or more of {known}")
        self.measures = tuple(measures)
        self.of_sets = [name for name in self.measures if name in OF_SETS]
        self.scale, self.f_threshold = number("scale", scale), number("f_threshold", f_threshold)
        self.emd_points = positive("emd_points", emd_points)

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Measures the samples of one batch; only numbers are kept."""
        for sample in data_samples:
            if "gt" not in sample:
                raise LossArgumentError("a sample has no 'gt' to be judged by; the dataset must give one")
            pred, gt = sample["pred"], sample["gt"]
            found: dict[str, Any] = {
                name: float(MEASURES[name](self, pred, gt)) for name in self.measures if name in MEASURES
            }
            if self.of_sets:
                found["clouds"] = (pred.detach().cpu(), gt.detach().cpu())
            self.results.append(found)

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """The mean of each measure over all samples, and the measures of sets, other processes' samples included."""
        values = dict.fromkeys(self.measures, 0.0)
        for name in self.measures:
            if name in MEASURES:
                values[name] = sum(result[name] for result in results) / len(results)
        if self.of_sets:
            pred, gt = ([result["clouds"][side] for result in results] for side in (0, 1))
            apart = functools.cache(lambda: pairwise_distances(pred, gt))
            values.update({name: float(OF_SETS[name](self, pred, gt, apart)) for name in self.of_sets})
        return values
