"""Negative log-likelihoods of a cloud under a mixture."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from apml_plugin.errors import LossArgumentError, LossValueError
from apml_plugin.functional import REDUCTIONS
from apml_plugin.losses.base import PointLoss
from apml_plugin.losses.mixture.container import Hierarchy, Mixture, as_hierarchy
from apml_plugin.losses.mixture.density import flat_log_likelihood, routed_log_likelihoods
from apml_plugin.matching import Lengths
from apml_plugin.matching.inputs import check_clouds
from apml_plugin.matching.settings import flag, one_of


class _Likelihood(PointLoss):
    def __init__(self, reduction: str = "mean", check_finite: bool = True) -> None:
        super().__init__()
        self.reduction = one_of("reduction", reduction, REDUCTIONS)
        self.check_finite = flag("check_finite", check_finite)

    def options(self) -> dict[str, Any]:
        return {"reduction": self.reduction}

    def log_likelihood(self, hierarchy: Hierarchy, points: Tensor) -> Tensor:
        """(B, N) for points (B, N, D), summed over what the loss sums over."""
        raise NotImplementedError

    def forward(  # type: ignore[override]
        self, pred: Any, gt: Tensor, pred_lengths: Lengths = None, gt_lengths: Lengths = None
    ) -> Tensor:
        hierarchy = as_hierarchy(self.needs, pred)
        if pred_lengths is not None:
            raise LossArgumentError(
                f"pred_lengths={pred_lengths!r}: a mixture has no padding to leave out; give gt_lengths alone"
            )
        clouds = check_clouds(hierarchy.levels[0].means, gt, None, gt_lengths, check_finite=self.check_finite)
        gt = clouds.gt
        counts = torch.tensor(clouds.masses, device=gt.device)
        valid = torch.arange(gt.shape[1], device=gt.device) < counts[:, None]
        if clouds.ragged:  # what stands in padding must not reach the sums, NaN included
            gt = torch.where(valid[..., None], gt, 0.0)
        nll = torch.where(valid, -self.log_likelihood(hierarchy, gt), 0.0).sum(1)
        if self.reduction != "sum":
            nll = nll / counts.clamp_min(1)
        if self.reduction == "none":
            return nll
        if not len(nll):
            return nll.sum()
        return nll.mean()


class HGMM(_Likelihood):
    """Negative log-likelihood of gt under a hierarchy of mixtures, summed over the levels (PointGMM, CVPR 2020).

    On each level a point counts with its log-density among the components it can choose from: all on the first one,
    on the next only the children of the component it fitted best. ``HGMM()(mixture, gt)``; the mixture is a
    :class:`Hierarchy`, a list of :class:`Mixture`, or a model's :class:`MixtureOutput`. In nats, unbounded below
    (a flat component can get arbitrarily dense).

    Args:
        reduction: ``"mean"`` over points and batch, ``"sum"`` over the points, averaged over the batch, or
            ``"none"``: the means over the points, (B,).
        check_finite: refuse NaN and Inf in gt with an error.
    """

    needs = (
        "HGMM needs a mixture and a cloud: HGMM()(Hierarchy([Mixture(logits, means, frames, eigenvalues), ...]), gt)"
    )

    def log_likelihood(self, hierarchy: Hierarchy, points: Tensor) -> Tensor:
        return torch.stack(routed_log_likelihoods(points, hierarchy)).sum(0)


class GMM(_Likelihood):
    """Negative log-likelihood of gt under one mixture; of a hierarchy, under its last level.

    ``GMM()(mixture, gt)``, the mixture a :class:`Mixture` or whatever HGMM takes. In nats, unbounded below.

    Args:
        reduction: ``"mean"`` over points and batch, ``"sum"`` over the points, averaged over the batch, or
            ``"none"``: the means over the points, (B,).
        weights: of a hierarchy's last level. ``"tree"``: products of the weights from the root down, the distribution
            that is sampled from; ``"softmax"``: its logits compete all with all, the published flat variant.
        check_finite: refuse NaN and Inf in gt with an error.
    """

    needs = "GMM needs a mixture and a cloud: GMM()(Mixture(logits, means, frames, eigenvalues), gt)"

    def __init__(self, reduction: str = "mean", weights: str = "tree", check_finite: bool = True) -> None:
        super().__init__(reduction, check_finite)
        self.weights = one_of("weights", weights, ("tree", "softmax"))

    def options(self) -> dict[str, Any]:
        return {"reduction": self.reduction, "weights": self.weights}

    def log_likelihood(self, hierarchy: Hierarchy, points: Tensor) -> Tensor:
        mixture: Mixture = hierarchy.flat() if self.weights == "tree" else hierarchy.levels[-1]
        return flat_log_likelihood(points, mixture)


def held_out_nll(mixture: Mixture | Hierarchy, points: Tensor) -> float:
    """Mean negative log-likelihood per point (nats) of points (B, N, D), without gradients."""
    with torch.no_grad():
        value = float(GMM()(mixture, points))
    if value != value:
        raise LossValueError("the likelihood is NaN; look for a diverged network")
    return value
