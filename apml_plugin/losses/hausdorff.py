"""Hausdorff distance: the one worst point."""

from __future__ import annotations

import torch
from torch import Tensor

from apml_plugin.losses.nearest import NearestLoss
from apml_plugin.matching.dense import root
from apml_plugin.matching.nearest import Way


class Hausdorff(NearestLoss):
    """Hausdorff distance: the largest distance from any point to its nearest neighbour, unit of the coordinates.

    Only the worst pair of points of each pair of clouds has a gradient (equally bad ones share it).

    Args:
        direction: ``"both"``, or the directed distance: ``"pred_to_gt"`` or ``"gt_to_pred"`` (for a partial gt).
        reduction: ``"mean"`` over the batch or ``"none"`` for (B,); there is no sum over points.
        ignore_zeros: drop points whose coordinates are all 0.
        check_finite: refuse NaN and Inf with an error.
    """

    reductions = ("mean", "none")

    def __init__(
        self,
        direction: str = "both",
        reduction: str = "mean",
        ignore_zeros: bool = False,
        check_finite: bool = True,
    ) -> None:
        super().__init__(direction, reduction, ignore_zeros, check_finite)

    def pooled(self, way: Way) -> Tensor:
        """(B,) largest squared distances; padding has 0."""
        return way.dist.amax(dim=1) if way.dist.shape[1] else way.dist.sum(dim=1)

    def combined(self, directions: list[Tensor]) -> Tensor:
        return root(torch.stack(directions).amax(dim=0))
