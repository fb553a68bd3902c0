"""Hyperbolic Chamfer distance (Lin et al., ICCV 2023), from its formula."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from apml_plugin.losses.density import positive
from apml_plugin.losses.nearest import NearestLoss
from apml_plugin.matching.nearest import Way
from apml_plugin.matching.settings import flag

LEAST = 1e-5
"""What the published code clamps alpha d^2 at."""


class HyperCD(NearestLoss):
    """Hyperbolic Chamfer distance: ``arcosh(1 + alpha d^2)`` of each nearest distance d, mean plus mean.

    No unit. Near 0 it is sqrt(2 alpha) d, far off only logarithmic, so that a few points far away weigh less.
    Computed as ``2 arsinh(d sqrt(alpha / 2))``, the same and exact near 0.

    Args:
        alpha: per squared unit of the coordinates; 1 is published.
        direction: ``"both"``, or one mean alone: ``"pred_to_gt"`` or ``"gt_to_pred"`` (for a partial gt).
        published: clamp alpha d^2 at 1e-5, as the published code does: no gradient for any point nearer than
            0.0032 / sqrt(alpha), and 0.0045 from each direction where all clouds coincide.
        reduction: ``"mean"``, ``"sum"`` (over the points, averaged over the batch) or ``"none"`` for (B,).
        ignore_zeros: drop points whose coordinates are all 0.
        check_finite: refuse NaN and Inf with an error.
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

    def options(self) -> dict[str, Any]:
        return {"alpha": self.alpha, "published": self.published, **super().options()}

    def points(self, way: Way) -> Tensor:
        if self.published:
            return 2 * ((self.alpha * way.dist).clamp_min(LEAST) / 2).sqrt().asinh()
        return 2 * (way.distance() * (self.alpha / 2) ** 0.5).asinh()
