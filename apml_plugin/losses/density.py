"""Density-aware Chamfer distance (Wu et al., NeurIPS 2021, arXiv 2111.12702)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from apml_plugin.errors import LossValueError
from apml_plugin.losses.nearest import NearestLoss
from apml_plugin.matching.nearest import Way
from apml_plugin.matching.settings import flag, number


class DCD(NearestLoss):
    """Density-aware Chamfer distance: a point counts less where its neighbour is shared by many.

    ``1 - exp(-alpha d^2) r / (c^n_lambda + 1e-6)`` for each point, d the distance to its nearest neighbour, c the
    number of points that share this neighbour (no gradient), r how many points its own cloud has for each one of its
    neighbour's; half the sum of both directions' means. No unit; 0 at best (to 1e-6) and 1 at most where N = M. With
    unequal numbers it can be below 0, and above 0 for a cloud against its copy with every point doubled (0.25), which
    ``non_reg`` repairs.

    Args:
        alpha: per squared unit of the coordinates; 1000, 200 and 40 are published with unit-sized shapes.
        n_lambda: power of the count c, 0 or more; 1 and 0.5 are published.
        non_reg: r is 1 at least.
        reduction: ``"mean"``, ``"sum"`` (over the points, averaged over the batch) or ``"none"`` for (B,).
        ignore_zeros: drop points whose coordinates are all 0.
        check_finite: refuse NaN and Inf with an error.
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
        self.n_lambda = number("n_lambda", n_lambda)
        if not 0 <= self.n_lambda < float("inf"):
            raise LossValueError(f"n_lambda={n_lambda!r} must be 0 or more and finite; 1 is usual")
        self.non_reg = flag("non_reg", non_reg)

    def options(self) -> dict[str, Any]:
        own = {"alpha": self.alpha, "n_lambda": self.n_lambda, "non_reg": self.non_reg}
        return {**own, "reduction": self.reduction, "ignore_zeros": self.ignore_zeros}

    def points(self, way: Way) -> Tensor:
        ratio = way.queries / way.others.clamp_min(1)
        if self.non_reg:
            ratio = ratio.clamp_min(1)
        weight = ratio[:, None] / (way.sharing() ** self.n_lambda + 1e-6)
        return 1 - (-self.alpha * way.dist).exp() * weight


def positive(name: str, value: Any) -> float:
    """A positive, finite float; LossArgumentError or LossValueError otherwise."""
    result = number(name, value)
    if not 0 < result < float("inf"):
        raise LossValueError(f"{name}={value!r} must be positive and finite")
    return result
