"""What losses made of nearest-neighbour distances share: the search, directions, reductions."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from apml_plugin.eager import eager
from apml_plugin.functional import REDUCTIONS, batch_value
from apml_plugin.losses.base import PointLoss
from apml_plugin.matching import Lengths, check_clouds
from apml_plugin.matching.nearest import DIRECTIONS, Way, ways
from apml_plugin.matching.settings import flag, one_of


class NearestLoss(PointLoss):
    """A loss that gives each point a value from its nearest neighbour, pooled over the points of each direction.

    Families define :meth:`points`. Memory O(N + M); a pair with an empty side contributes 0.

    Args:
        direction: ``"both"``, or one direction alone: ``"pred_to_gt"`` (each pred point to the nearest gt point: pred
            may be a part of gt) or ``"gt_to_pred"`` (gt, a partial scan, may be a part of pred).
        reduction: ``"mean"``: means over the points and over the batch; ``"sum"``: sums over the points, averaged
            over the batch, as APML; ``"none"``: the pairs' values, (B,), with means over the points.
        ignore_zeros: drop points whose coordinates are all 0.
        check_finite: refuse NaN and Inf with an error.
    """

    reductions: ClassVar[tuple[str, ...]] = REDUCTIONS
    halved: ClassVar[bool] = False
    """Whether both directions together are half the sum of each."""

    def __init__(self, direction: str, reduction: str, ignore_zeros: bool, check_finite: bool) -> None:
        super().__init__()
        self.direction = one_of("direction", direction, DIRECTIONS)
        self.reduction = one_of("reduction", reduction, self.reductions)
        self.ignore_zeros = flag("ignore_zeros", ignore_zeros)
        self.check_finite = flag("check_finite", check_finite)

    def points(self, way: Way) -> Tensor:
        """Values (B, N) of the points of one direction; what they are at padding does not matter, but finite."""
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

    def options(self) -> dict[str, Any]:
        return {"direction": self.direction, "reduction": self.reduction, "ignore_zeros": self.ignore_zeros}

    def forward(self, pred: Tensor, gt: Tensor, pred_lengths: Lengths = None, gt_lengths: Lengths = None) -> Tensor:
        return _evaluate(self, pred, gt, pred_lengths, gt_lengths)


@eager()
def _evaluate(loss: NearestLoss, pred: Tensor, gt: Tensor, pred_lengths: Lengths, gt_lengths: Lengths) -> Tensor:
    clouds = check_clouds(
        pred, gt, pred_lengths, gt_lengths, ignore_zeros=loss.ignore_zeros, check_finite=loss.check_finite
    )
    with torch.autocast(pred.device.type, enabled=False):
        losses = loss.combined([loss.pooled(way) for way in ways(clouds, loss.direction)])
    return batch_value(losses, loss.reduction)
