"""Losses that weigh nearest distances in other ways than Chamfer: DCD, HyperCD, InfoCD. Written from the formulas."""

from __future__ import annotations

import torch
from torch import Tensor

from apml_plugin.arguments import flag, not_negative, positive
from apml_plugin.functional import REDUCTIONS
from apml_plugin.losses.base import declare
from apml_plugin.losses.chamfer import NearestLoss
from apml_plugin.matching.nearest import Way

LEAST = 1e-5
"""The lower bound of alpha d^2 in HyperCD's published code."""


@declare()
class DCD(NearestLoss):
    """Density-aware Chamfer distance: a point counts less where its neighbour is shared by many.

    From Wu et al., NeurIPS 2021 (arXiv 2111.12702): ``1 - exp(-alpha d^2) r / (c^n_lambda + 1e-6)`` for each point, d
    the distance to its nearest neighbour, c the number of points that share this neighbour (no gradient), r how many
    points its cloud has for each point of the other cloud; half the sum of both directions' means. No unit; between
    0 (to 1e-6) and 1 where N = M. With unequal numbers it can be below 0, and it is 0.25 for a cloud against its copy
    with every point doubled; ``non_reg`` repairs that.

    Args:
        alpha: per squared unit of the coordinates; 1000, 200 and 40 are published with unit-sized shapes.
        n_lambda: power of the count c, 0 or more; 1 and 0.5 are published.
        non_reg: r is 1 at least.
        reduction: ``"mean"``, ``"sum"`` (over the points, averaged over the batch) or ``"none"`` for (B,).
        ignore_zeros, check_finite: as :class:`ChamferL1`.
    """

    halved = True

    def __init__(
        self,
        alpha: float = 1000.0,
        n_lambda: float = 1.0,
        non_reg: bool = False,
        reduction: str = "mean",
        ignore_zeros: bool = False,
        check_finite: bool = True,
    ) -> None:
        super().__init__("both", reduction, ignore_zeros, check_finite)
        self.alpha = positive("alpha", alpha)
        self.n_lambda = not_negative("n_lambda", n_lambda, "1")
        self.non_reg = flag("non_reg", non_reg)

    def points(self, way: Way) -> Tensor:
        ratio = way.queries / way.others.clamp_min(1)
        if self.non_reg:
            ratio = ratio.clamp_min(1)
        weight = ratio[:, None] / (way.sharing() ** self.n_lambda + 1e-6)
        return 1 - (-self.alpha * way.dist).exp() * weight


@declare()
class HyperCD(NearestLoss):
    """Hyperbolic Chamfer distance: points far away weigh less, by ``arcosh(1 + alpha d^2)`` of each distance d.

    From Lin et al., ICCV 2023; mean plus mean, no unit. Near 0 it is sqrt(2 alpha) d, at a distance logarithmic.
    Computed as ``2 arsinh(d sqrt(alpha / 2))``, which is equal and exact near 0.

    Args:
        alpha: per squared unit of the coordinates; 1 is published.
        direction: ``"both"``, or one mean alone: ``"pred_to_gt"`` or ``"gt_to_pred"`` (for a partial gt).
        published: clamp alpha d^2 at 1e-5, as the published code does: no gradient for any point nearer than
            0.0032 / sqrt(alpha), and 0.0045 from each direction where all clouds coincide.
        reduction: ``"mean"``, ``"sum"`` (over the points, averaged over the batch) or ``"none"`` for (B,).
        ignore_zeros, check_finite: as :class:`ChamferL1`.
    """

    def __init__(
        self,
        alpha: float = 1.0,
        direction: str = "both",
        published: bool = False,
        reduction: str = "mean",
        ignore_zeros: bool = False,
        check_finite: bool = True,
    ) -> None:
        super().__init__(direction, reduction, ignore_zeros, check_finite)
        self.alpha = positive("alpha", alpha)
        self.published = flag("published", published)

    def points(self, way: Way) -> Tensor:
        if self.published:
            return 2 * ((self.alpha * way.dist).clamp_min(LEAST) / 2).sqrt().asinh()
        values: Tensor = 2 * (way.distance() * (self.alpha / 2) ** 0.5).asinh()
        return values


@declare()
class InfoCD(NearestLoss):
    """Chamfer with a contrastive term that spreads the distances: ``d / tau + lambda_ log sum exp(-d / tau)``.

    From Lin et al., NeurIPS 2023; half the sum of both directions. d is the distance to the nearest neighbour, and
    the inner sum runs over all points of the same cloud. With the published ``lambda_`` of 1e-7 the second term is
    negligible, and the loss is Chamfer-L1 over tau. The 1e-7 inside the logarithm and the lower bound of 3e-5 on d in
    the published code are left out.

    Args:
        tau: in the unit of the coordinates; 2 is published.
        lambda_: weight of the contrastive term, 0 or more.
        direction: ``"both"``, or one direction alone, not halved: ``"pred_to_gt"`` or ``"gt_to_pred"`` (for a
            partial gt).
        reduction: ``"mean"`` over points and batch; ``"sum"`` over the points, averaged over the batch;
            ``"published"``: summed over points and batch; ``"none"``: the pairs' means, (B,).
        ignore_zeros, check_finite: as :class:`ChamferL1`.
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
        self.lambda_ = not_negative("lambda_", lambda_, "1e-7")

    def points(self, way: Way) -> Tensor:
        scaled = way.distance() / self.tau
        if scaled.shape[1] == 0:
            return scaled
        exponents = -scaled
        if way.mask is not None:
            # A pair without valid points keeps its zeros: the logarithm of an empty sum has no gradient.
            counts = way.mask | ~way.mask.any(dim=1, keepdim=True)
            exponents = exponents.where(counts, -torch.inf)
        return scaled + self.lambda_ * exponents.logsumexp(dim=1, keepdim=True)

    def pooled(self, way: Way) -> Tensor:
        return way.sum(self.points(way)) if self.reduction == "published" else super().pooled(way)

    def combined(self, directions: list[Tensor]) -> Tensor:
        losses = super().combined(directions)
        # The caller averages over the batch; the published sum does not.
        return losses * max(len(losses), 1) if self.reduction == "published" else losses
