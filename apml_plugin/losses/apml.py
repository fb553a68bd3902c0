"""APML, its sparse variant, and the published class under its own argument names."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from apml_plugin.arguments import flag, one_of
from apml_plugin.functional import REDUCTIONS, apml_loss
from apml_plugin.losses.base import PointLoss, arguments_of, declare
from apml_plugin.matching import Lengths, Settings, backends


@declare()
class APML(PointLoss):
    """Adaptive Probabilistic Matching Loss: soft one-to-one matching, unit of the coordinates (arXiv 2509.08104).

    The module of :func:`apml_plugin.functional.apml_loss`.

    Args:
        p_min: least probability of the nearest point in each one-sided softmin, in [0, 1).
        threshold: similarities at or below it are left out. ``"auto"`` finds one for each point, such that the value
            is exact to float32.
        iterations: Sinkhorn iterations.
        eps: added to row and column sums in Sinkhorn.
        ties: ``"share"``, or the published ``"uniform"``.
        backend: ``"auto"``, ``"native"``, ``"sparse"`` or ``"dense"``.
        reduction: ``"sum"`` (published scale, grows with the number of gt points), ``"mean"`` (mean matched
            distance, on the scale of Chamfer-L1) or ``"none"``.
        differentiate_plan: differentiate through the plan too.
        ignore_zeros: drop points whose coordinates are all 0.
        check_finite: raise an error for NaN and Inf.

    Raises:
        LossArgumentError, LossValueError: a parameter of the wrong type or out of range, when built.
    """

    def __init__(
        self,
        p_min: float = 0.8,
        threshold: float | str = "auto",
        iterations: int = 20,
        eps: float = 1e-8,
        ties: str = "share",
        backend: str = "auto",
        reduction: str = "sum",
        differentiate_plan: bool = False,
        ignore_zeros: bool = False,
        check_finite: bool = True,
    ) -> None:
        super().__init__()
        self.settings = Settings(p_min, threshold, iterations, eps, ties)
        self.backend = one_of("backend", backend, backends.names())
        self.reduction = one_of("reduction", reduction, REDUCTIONS)
        self.differentiate_plan = flag("differentiate_plan", differentiate_plan)
        self.ignore_zeros = flag("ignore_zeros", ignore_zeros)
        self.check_finite = flag("check_finite", check_finite)

    def options(self) -> dict[str, Any]:
        values = {**vars(self.settings), **vars(self)}
        return {name: values[name] for name in arguments_of(APML)}

    def forward(self, pred: Tensor, gt: Tensor, pred_lengths: Lengths = None, gt_lengths: Lengths = None) -> Tensor:
        s = self.settings
        return apml_loss(
            pred,
            gt,
            p_min=s.p_min,
            threshold=s.threshold,
            iterations=s.iterations,
            eps=s.eps,
            ties=s.ties,
            reduction=self.reduction,
            backend=self.backend,
            differentiate_plan=self.differentiate_plan,
            ignore_zeros=self.ignore_zeros,
            pred_lengths=pred_lengths,
            gt_lengths=gt_lengths,
            check_finite=self.check_finite,
        )


@declare()
class APMLSparse(APML):
    """APML from its sparse support, at the published default threshold 1e-10 (up to 1.4 % off the dense loss).

    Args: as :class:`APML`, with ``threshold=1e-10``; ``backend="auto"`` then never takes the dense one, which drops
    nothing.
    """

    def __init__(self, p_min: float = 0.8, threshold: float | str = 1e-10, backend: str = "auto", **options: Any):
        super().__init__(p_min=p_min, threshold=threshold, backend=backend, **options)


@declare()
class AdaptiveProbabilisticMatchingLoss(APML):
    """APML with the argument names and the tie rule of the published class.

    Args:
        min_softmax_value: p_min.
        eps: as :class:`APML`.
        ties: ``"uniform"`` by default, as published.
        options: any other argument of :class:`APML`.
    """

    def __init__(self, min_softmax_value: float = 0.8, eps: float = 1e-8, ties: str = "uniform", **options: Any):
        super().__init__(p_min=options.pop("p_min", min_softmax_value), eps=eps, ties=ties, **options)
