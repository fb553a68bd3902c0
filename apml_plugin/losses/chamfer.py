"""Chamfer distances with PoinTr's factors, the Hausdorff distance, and what losses of nearest distances share."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from apml_plugin.arguments import flag, one_of
from apml_plugin.eager import eager
from apml_plugin.functional import REDUCTIONS, batch_value, chamfer_distance
from apml_plugin.losses.base import PointLoss, declare
from apml_plugin.matching import Lengths, check_clouds, compute_dtype
from apml_plugin.matching.dense import root
from apml_plugin.matching.nearest import DIRECTIONS, Way, ways


class NearestLoss(PointLoss):
    """A loss that gives each point a value from its nearest neighbour, pooled over the points of each direction.

    Families define :meth:`points`. Memory O(N + M). A pair with an empty side contributes 0.

    Args:
        direction: ``"both"``, or one direction alone: ``"pred_to_gt"`` (each pred point to the nearest gt point: pred
            may be a part of gt) or ``"gt_to_pred"`` (gt, a partial scan, may be a part of pred).
        reduction: ``"mean"``: means over the points and over the batch; ``"sum"``: sums over the points, averaged
            over the batch; ``"none"``: the pairs' values, (B,), with means over the points.
        ignore_zeros: drop points whose coordinates are all 0.
        check_finite: raise an error for NaN and Inf.
    """

    reductions: ClassVar[tuple[str, ...]] = REDUCTIONS
    halved: ClassVar[bool] = False
    """Whether both directions together are half the sum of each."""

    def __init__(
        self,
        direction: str = "both",
        reduction: str = "mean",
        ignore_zeros: bool = False,
        check_finite: bool = True,
    ) -> None:
        super().__init__()
        self.direction = one_of("direction", direction, DIRECTIONS)
        self.reduction = one_of("reduction", reduction, self.reductions)
        self.ignore_zeros = flag("ignore_zeros", ignore_zeros)
        self.check_finite = flag("check_finite", check_finite)

    def points(self, way: Way) -> Tensor:
        """Values (B, N) of the points of one direction. Those of padding are ignored, but must be finite."""
        raise NotImplementedError

    def pooled(self, way: Way) -> Tensor:
        """Values (B,) of one direction; 0 for a pair with an empty side."""
        values = self.points(way)
        return way.sum(values) if self.reduction == "sum" else way.mean(values)

    def combined(self, directions: list[Tensor]) -> Tensor:
        """Values (B,) of the pairs from those of one direction or two."""
        if len(directions) == 1:
            return directions[0]
        total = directions[0] + directions[1]
        return total / 2 if self.halved else total

    def forward(self, pred: Tensor, gt: Tensor, pred_lengths: Lengths = None, gt_lengths: Lengths = None) -> Tensor:
        return _evaluate(self, pred, gt, pred_lengths, gt_lengths)


@eager()
def _evaluate(loss: NearestLoss, pred: Tensor, gt: Tensor, pred_lengths: Lengths, gt_lengths: Lengths) -> Tensor:
    clouds = check_clouds(
        pred, gt, pred_lengths, gt_lengths, ignore_zeros=loss.ignore_zeros, check_finite=loss.check_finite
    )
    with torch.autocast(pred.device.type, enabled=False):
        losses = loss.combined([loss.pooled(way) for way in ways(clouds, loss.direction)])
    return batch_value(losses.to(compute_dtype(pred, gt)), loss.reduction, loss.check_finite)


class _Chamfer(PointLoss):
    norm: str
    direction = "both"

    def __init__(self, reduction: str = "mean", ignore_zeros: bool = False, check_finite: bool = True) -> None:
        super().__init__()
        self.reduction = one_of("reduction", reduction, REDUCTIONS)
        self.ignore_zeros = flag("ignore_zeros", ignore_zeros)
        self.check_finite = flag("check_finite", check_finite)

    def forward(self, pred: Tensor, gt: Tensor, pred_lengths: Lengths = None, gt_lengths: Lengths = None) -> Tensor:
        return chamfer_distance(
            pred,
            gt,
            norm=self.norm,
            direction=self.direction,
            reduction=self.reduction,
            ignore_zeros=self.ignore_zeros,
            pred_lengths=pred_lengths,
            gt_lengths=gt_lengths,
            check_finite=self.check_finite,
        )


@declare()
class ChamferL1(_Chamfer):
    """Half the sum of the two mean nearest distances, in the unit of the coordinates.

    Args:
        reduction: ``"mean"`` over points and batch, ``"sum"`` over the points, averaged over the batch, or
            ``"none"``: the pairs' means over the points, (B,).
        ignore_zeros: drop points whose coordinates are all 0.
        check_finite: raise an error for NaN and Inf.
    """

    norm = "L1"


@declare()
class ChamferL2(_Chamfer):
    """Sum of the two mean squared nearest distances, in squared units.

    Args: as :class:`ChamferL1`.
    """

    norm = "L2"


@declare()
class OneSidedChamfer(_Chamfer):
    """One direction of Chamfer, for partial clouds: mean distance from each point of one cloud to the other.

    By default the prediction has to pass through every gt point and may reach further, so that a partial scan can be
    the gt. The value is one of :class:`ChamferL1`'s two means, not half of it.

    Args:
        direction: ``"gt_to_pred"`` (each gt point to its nearest pred point: gt may be a part of pred) or
            ``"pred_to_gt"`` (pred may be a part of gt).
        norm: ``"L1"``: Euclidean distances; ``"L2"``: squared ones.
        reduction, ignore_zeros, check_finite: as :class:`ChamferL1`.
    """

    def __init__(
        self,
        direction: str = "gt_to_pred",
        norm: str = "L1",
        reduction: str = "mean",
        ignore_zeros: bool = False,
        check_finite: bool = True,
    ) -> None:
        super().__init__(reduction, ignore_zeros, check_finite)
        self.direction = one_of("direction", direction, DIRECTIONS[1:])
        self.norm = one_of("norm", norm, ("L1", "L2"))


@declare()
class Hausdorff(NearestLoss):
    """Hausdorff distance: the largest distance from any point to its nearest neighbour, unit of the coordinates.

    Only the furthest point of each pair of clouds has a gradient; equally far ones share it.

    Args:
        direction: ``"both"``, or the directed distance: ``"pred_to_gt"`` or ``"gt_to_pred"`` (for a partial gt).
        reduction: ``"mean"`` over the batch or ``"none"`` for (B,); there is no sum over points.
        ignore_zeros, check_finite: as :class:`ChamferL1`.
    """

    reductions = ("mean", "none")

    def pooled(self, way: Way) -> Tensor:
        """(B,) largest squared distances; padding has 0."""
        return way.dist.amax(dim=1) if way.dist.shape[1] else way.dist.sum(dim=1)

    def combined(self, directions: list[Tensor]) -> Tensor:
        return root(torch.stack(directions).amax(dim=0))
