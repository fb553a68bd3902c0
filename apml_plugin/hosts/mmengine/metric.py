"""The package's metrics as an MMEngine metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.evaluator import BaseMetric

from apml_plugin.arguments import number, positive_whole
from apml_plugin.errors import LossArgumentError
from apml_plugin.metrics import METRICS, Pair, find
from apml_plugin.metrics.table import measure_sets


class CompletionMetric(BaseMetric):
    """Means of metrics over the samples, logged as ``completion/CDL1`` and so on.

    Reads samples with ``pred`` (N, 3) and ``gt`` (M, 3), as CompletionModel predicts them.

    Args:
        measures: names of ``apml_plugin.metrics.METRICS``: ``CDL1``, ``CDL2``, ``F-Score``, ``EMD``, ``Uniformity``,
            ``DCD``, ``Hausdorff``, ``P50``, ``P95`` (percentiles of the distances to the nearest point), or ``JSD``,
            ``Coverage``, ``MMD`` (of CD-L2), which compare all predictions as one set with all ground truths and keep
            the clouds until the end. Lower is better, except for F-Score and Coverage.
        scale: factor of metrics that are lengths, such as CDL1 and EMD; 1000 as in PoinTr's tables.
        f_threshold: distance below which the F-score counts a point as matched, in the unit of the coordinates.
        emd_points: the exact EMD compares this many points of each cloud, or all if there are fewer.
        collect_device, prefix, collect_dir: as for every MMEngine metric.

    Raises:
        LossArgumentError, LossValueError: an argument of the wrong type or out of range.
    """

    default_prefix = "completion"

    def __init__(
        self,
        measures: Sequence[str] = ("CDL1", "CDL2", "F-Score", "EMD"),
        scale: float = 1000.0,
        f_threshold: float = 0.01,
        emd_points: int = 1024,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if isinstance(measures, str) or not measures:
            raise LossArgumentError(f"measures={measures!r} must be a list of one or more of {', '.join(METRICS)}")
        self.scale, threshold = number("scale", scale), number("f_threshold", f_threshold)
        fixed: dict[str, dict[str, Any]] = {
            "F-Score": {"threshold": threshold},
            "EMD": {"points": positive_whole("emd_points", emd_points)},
        }
        try:
            self.metrics = {
                metric.name: metric.in_reports_with(**fixed.get(metric.name, {})) for metric in map(find, measures)
            }
        except LossArgumentError as error:
            raise LossArgumentError(f"measures={measures!r}: {error}") from None
        self.of_sets = [metric for metric in self.metrics.values() if metric.of_sets]

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Measures the samples of one batch. Only numbers are kept, unless a metric of sets needs the clouds."""
        for sample in data_samples:
            if "gt" not in sample:
                raise LossArgumentError("a sample has no 'gt' to compare with; the dataset must give one")
            pred, gt = sample["pred"], sample["gt"]
            pair = Pair.checked(pred, gt)
            result: dict[str, Any] = {
                name: metric.of_pair(pair, self.scale) for name, metric in self.metrics.items() if not metric.of_sets
            }
            if self.of_sets:
                result["clouds"] = (pred.detach().cpu(), gt.detach().cpu())
            self.results.append(result)

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """The mean of each metric over all samples, and the metrics of sets, over the samples of all processes."""
        sets: dict[str, float] = {}
        if self.of_sets:
            pred, gt = ([result["clouds"][side] for result in results] for side in (0, 1))
            sets = measure_sets(self.of_sets, pred, gt, self.scale)
        return {
            name: sets[name] if metric.of_sets else sum(result[name] for result in results) / len(results)
            for name, metric in self.metrics.items()
        }
