"""Chamfer distances with PoinTr's factors, so that they mix with a host's own."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from apml_plugin.functional import chamfer_distance
from apml_plugin.losses.base import PointLoss
from apml_plugin.matching import Lengths
from apml_plugin.matching.settings import flag, one_of


class _Chamfer(PointLoss):
    norm: ClassVar[str]

    def __init__(self, reduction: str = "mean", ignore_zeros: bool = False, check_finite: bool = True) -> None:
        super().__init__()
        self.reduction = one_of("reduction", reduction, ("mean", "none"))
        self.ignore_zeros = flag("ignore_zeros", ignore_zeros)
        self.check_finite = flag("check_finite", check_finite)

    def options(self) -> dict[str, Any]:
        return {"reduction": self.reduction, "ignore_zeros": self.ignore_zeros}

    def forward(self, pred: Tensor, gt: Tensor, pred_lengths: Lengths = None, gt_lengths: Lengths = None) -> Tensor:
        return chamfer_distance(
            pred,
            gt,
            norm=self.norm,
            reduction=self.reduction,
            ignore_zeros=self.ignore_zeros,
            pred_lengths=pred_lengths,
            gt_lengths=gt_lengths,
            check_finite=self.check_finite,
        )


class ChamferL1(_Chamfer):
    """Half the sum of the two mean nearest distances, in the unit of the coordinates.

    Args:
        reduction: ``"mean"`` over the batch or ``"none"`` for (B,).
        ignore_zeros: drop points whose coordinates are all 0.
        check_finite: refuse NaN and Inf with an error.
    """

    norm = "L1"


class ChamferL2(_Chamfer):
    """Sum of the two mean squared nearest distances, in squared units.

    Args:
        reduction: ``"mean"`` over the batch or ``"none"`` for (B,).
        ignore_zeros: drop points whose coordinates are all 0.
        check_finite: refuse NaN and Inf with an error.
    """

    norm = "L2"
