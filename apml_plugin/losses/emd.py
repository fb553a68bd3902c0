"""Earth mover's distance as a loss: exact, or with an error that is proven in every call."""

from __future__ import annotations

from torch import Tensor

from apml_plugin.arguments import flag, one_of, positive
from apml_plugin.functional import REDUCTIONS, earth_movers_distance
from apml_plugin.losses.base import PointLoss, declare
from apml_plugin.matching import Lengths
from apml_plugin.matching.assignment import UNEQUAL


@declare()
class EMD(PointLoss):
    """Earth mover's distance: mean distance of the best one-to-one assignment, exact, unit of the coordinates.

    By the compiled ops, with memory proportional to N: seconds for 16,384 points, more where a prediction is clumped.
    Without them by SciPy's linear_sum_assignment, with N x N memory: fit for about 4,096 points. Always on the CPU.
    Gradients go to both clouds. NaN and Inf always raise an error.

    Args:
        unequal: where pred and gt differ in number: ``"raise"`` an error, or match all points of the ``"smaller"``
            cloud and leave the surplus of the other out (gradient 0).
        reduction: ``"mean"`` over matched points and batch; ``"sum"`` over the matched points, averaged over the
            batch; ``"none"``: the pairs' means, (B,).
        ignore_zeros: drop points whose coordinates are all 0.
    """

    tolerance: float | None = None

    def __init__(self, unequal: str = "raise", reduction: str = "mean", ignore_zeros: bool = False) -> None:
        super().__init__()
        self.unequal = one_of("unequal", unequal, UNEQUAL)
        self.reduction = one_of("reduction", reduction, REDUCTIONS)
        self.ignore_zeros = flag("ignore_zeros", ignore_zeros)

    def forward(self, pred: Tensor, gt: Tensor, pred_lengths: Lengths = None, gt_lengths: Lengths = None) -> Tensor:
        loss: Tensor = earth_movers_distance(
            pred,
            gt,
            tolerance=self.tolerance,
            unequal=self.unequal,
            reduction=self.reduction,
            ignore_zeros=self.ignore_zeros,
            pred_lengths=pred_lengths,
            gt_lengths=gt_lengths,
        )
        return loss


@declare()
class ApproximateEMD(EMD):
    """Earth mover's distance to a tolerance: one to one too, and at most ``tolerance`` above the exact value.

    The exact value lies between ``value / (1 + tolerance)`` and ``value``, proven in each call by the prices of an
    auction; :func:`apml_plugin.functional.earth_movers_distance` with ``return_bound=True`` gives the proven bound.
    On the CPU, without an N x N matrix: for clouds on which :class:`EMD` takes too long. Without the compiled ops it
    takes 4 KB a point and ten times as long, and proves the value of clouds that nearly coincide only to 1e-6 of their
    extent.

    Args:
        tolerance: largest relative error, above 0.
        unequal, reduction, ignore_zeros: as :class:`EMD`.
    """

    def __init__(
        self,
        tolerance: float = 0.01,
        unequal: str = "raise",
        reduction: str = "mean",
        ignore_zeros: bool = False,
    ) -> None:
        super().__init__(unequal, reduction, ignore_zeros)
        self.tolerance = positive("tolerance", tolerance)
