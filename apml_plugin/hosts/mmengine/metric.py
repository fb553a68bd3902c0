"""What a completion is judged by, as an MMEngine metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from apml_plugin.errors import LossArgumentError
from apml_plugin.hosts.mmengine.arguments import names_arguments
from apml_plugin.matching.settings import number
from apml_plugin.metrics import cd_l1, cd_l2, emd, f_score, uniformity
from apml_plugin.models.layers import positive

MEASURES = ("CDL1", "CDL2", "F-Score", "EMD", "Uniformity")


@names_arguments
class CompletionMetric(BaseMetric):
    """Means over the samples of what :mod:`apml_plugin.metrics` measures, logged as ``completion/CDL1`` and so on.

    Reads samples with ``pred`` (N, 3) and ``gt`` (M, 3), as CompletionModel predicts them.

    Args:
        measures: which of ``CDL1``, ``CDL2``, ``F-Score``, ``EMD``, ``Uniformity``. Lower is better, but for F-Score.
        scale: what CDL1, CDL2 and EMD are multiplied by; 1000 as in PoinTr's tables.
        f_threshold: distance below which the F-score counts a point as matched, in the unit of the coordinates.
        emd_points: the exact EMD is taken between this many points of each cloud (all, if there are fewer).
        collect_device, prefix, collect_dir: as for every MMEngine metric.

    Raises:
        LossArgumentError, LossValueError: an argument of the wrong type or out of range.
    """

    default_prefix = "completion"

    def __init__(
        self,
        measures: Sequence[str] = MEASURES[:4],
        scale: float = 1000.0,
        f_threshold: float = 0.01,
        emd_points: int = 1024,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if isinstance(measures, str) or not measures or not set(measures) <= set(MEASURES):
            raise LossArgumentError(f"measures={measures!r} must be a list of one or more of {', '.join(MEASURES)}")
        self.measures = tuple(measures)
        self.scale, self.f_threshold = number("scale", scale), number("f_threshold", f_threshold)
        self.emd_points = positive("emd_points", emd_points)

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Measures the samples of one batch; only numbers are kept."""
        for sample in data_samples:
            if "gt" not in sample:
                raise LossArgumentError("a sample has no 'gt' to be judged by; the dataset must give one")
            pred, gt = sample["pred"], sample["gt"]
            self.results.append({name: float(self._measure(name, pred, gt)) for name in self.measures})

    def compute_metrics(self, results: list[dict[str, float]]) -> dict[str, float]:
        """The mean of each measure over all samples, those of other processes included."""
        return {name: sum(result[name] for result in results) / len(results) for name in self.measures}

    def _measure(self, name: str, pred: Tensor, gt: Tensor) -> Tensor:
        if name == "F-Score":
            return f_score(pred, gt, self.f_threshold)
        if name == "Uniformity":
            return uniformity(pred, gt)
        if name == "EMD":
            n = min(len(pred), len(gt), self.emd_points)
            return self.scale * emd(_some(pred, n), _some(gt, n))
        return self.scale * (cd_l1 if name == "CDL1" else cd_l2)(pred, gt)


def _some(cloud: Tensor, n: int) -> Tensor:
    """n of the points; the same ones each time, so that epochs and losses are compared on the same sample."""
    chosen = torch.randperm(len(cloud), generator=torch.Generator().manual_seed(0))[:n]
    return cloud[chosen.to(cloud.device)]
