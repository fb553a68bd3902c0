"""Chamfer distances with PoinTr's factors, so that they mix with a host's own."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from apml_plugin.functional import REDUCTIONS, chamfer_distance
from apml_plugin.losses.base import PointLoss
from apml_plugin.losses.nearest import NearestLoss
from apml_plugin.matching import Lengths
from apml_plugin.matching.nearest import Way
from apml_plugin.matching.settings import flag, one_of


class _Chamfer(PointLoss):
    norm: ClassVar[str]

    def __init__(self, reduction: str = "mean", ignore_zeros: bool = False, check_finite: bool = True) -> None:
        super().__init__()
        self.reduction = one_of("reduction", reduction, REDUCTIONS)
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
        reduction: ``"mean"`` over points and batch, ``"sum"`` over the points, averaged over the batch, or
            ``"none"``: the pairs' means over the points, (B,).
        ignore_zeros: drop points whose coordinates are all 0.
        check_finite: refuse NaN and Inf with an error.
    """

    norm = "L1"


class ChamferL2(_Chamfer):
    """Sum of the two mean squared nearest distances, in squared units.

    Args:
        reduction: ``"mean"`` over points and batch, ``"sum"`` over the points, averaged over the batch, or
            ``"none"``: the pairs' means over the points, (B,).
        ignore_zeros: drop points whose coordinates are all 0.
        check_finite: refuse NaN and Inf with an error.
    """

    norm = "L2"


class OneSidedChamfer(NearestLoss):
    """One direction of Chamfer: mean distance (or squared distance) from each point of one cloud to the other.

    For partial matching: the default asks that the prediction passes through every gt point and lets it reach
    further, so that a partial scan may be the gt. Of :class:`ChamferL1` it is one mean, not half of it.

    Args:
        direction: ``"gt_to_pred"`` (each gt point to its nearest pred point: gt may be a part of pred) or
            ``"pred_to_gt"`` (pred may be a part of gt).
        norm: ``"L1"``: Euclidean distances; ``"L2"``: squared ones.
        reduction: ``"mean"`` over points and batch, ``"sum"`` over the points, averaged over the batch, or
            ``"none"``: the pairs' means over the points, (B,).
        ignore_zeros: drop points whose coordinates are all 0.
        check_finite: refuse NaN and Inf with an error.
    """

    def __init__(
        self,
        direction: str = "gt_to_pred",
        norm: str = "L1",
        reduction: str = "mean",
        ignore_zeros: bool = False,
        check_finite: bool = True,
    ) -> None:
        super().__init__(
            one_of("direction", direction, ("gt_to_pred", "pred_to_gt")), reduction, ignore_zeros, check_finite
        )
        self.norm = one_of("norm", norm, ("L1", "L2"))

    def options(self) -> dict[str, Any]:
        return {"norm": self.norm, **super().options()}

    def points(self, way: Way) -> Tensor:
        return way.distance() if self.norm == "L1" else way.dist
