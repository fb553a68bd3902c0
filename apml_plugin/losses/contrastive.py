"""InfoCD: Chamfer with a contrastive term (Lin et al., NeurIPS 2023)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from apml_plugin.errors import LossValueError
from apml_plugin.functional import REDUCTIONS
from apml_plugin.losses.density import positive
from apml_plugin.losses.nearest import NearestLoss
from apml_plugin.matching.nearest import Way
from apml_plugin.matching.settings import number


class InfoCD(NearestLoss):
    """InfoCD: ``d / tau + lambda_ log sum exp(-d / tau)`` for each point, half the sum of both directions.

    d is the distance to the nearest neighbour and the inner sum runs over the point's own cloud. With the published
    ``lambda_`` of 1e-7 the second term is numerically nothing, and this is Chamfer-L1 over tau; a larger one spreads
    the distances. (The published 1e-7 inside the logarithm and floor of 3e-5 under d are left out.)

    Args:
        tau: in the unit of the coordinates; 2 is published.
        lambda_: weight of the contrastive term, 0 or more.
        direction: ``"both"``, or one direction alone, not halved: ``"pred_to_gt"`` or ``"gt_to_pred"`` (for a
            partial gt).
        reduction: ``"mean"`` over points and batch; ``"sum"`` over the points, averaged over the batch;
            ``"published"``: summed over points and batch; ``"none"``: the pairs' means, (B,).
        ignore_zeros: drop points whose coordinates are all 0.
        check_finite: refuse NaN and Inf with an error.
    """

    reductions = (*REDUCTIONS, "published")
    halved = True

    def __init__(
        self,
        tau: float = 2.0,
        lambda_: float = 1e-7,
        direction: str = "both",
        reduction: str = "mean",
        ignore_zeros: bool = False,
        check_finite: bool = True,
    ) -> None:
        super().__init__(direction, reduction, ignore_zeros, check_finite)
        self.tau = positive("tau", tau)
        self.lambda_ = number("lambda_", lambda_)
        if not 0 <= self.lambda_ < float("inf"):
            raise LossValueError(f"lambda_={lambda_!r} must be 0 or more and finite; 1e-7 is published")

    def options(self) -> dict[str, Any]:
        return {"tau": self.tau, "lambda_": self.lambda_, **super().options()}

    def points(self, way: Way) -> Tensor:
        scaled = way.distance() / self.tau
        if scaled.shape[1] == 0:
            return scaled
        exponents = -scaled
        if way.mask is not None:
            # A pair of which nothing counts keeps its zeros: the logarithm of an empty sum has no gradient.
            counts = way.mask | ~way.mask.any(dim=1, keepdim=True)
            exponents = exponents.where(counts, -torch.inf)
        return scaled + self.lambda_ * exponents.logsumexp(dim=1, keepdim=True)

    def pooled(self, way: Way) -> Tensor:
        return way.sum(self.points(way)) if self.reduction == "published" else super().pooled(way)

    def combined(self, directions: list[Tensor]) -> Tensor:
        losses = super().combined(directions)
        # The batch is averaged in the end; the published sum is undone here.
        return losses * max(len(losses), 1) if self.reduction == "published" else losses
