"""Log-densities of points under mixtures, and the losses made of them. All sums are log-sum-exps."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from apml_plugin.arguments import flag, one_of
from apml_plugin.errors import LossArgumentError, LossValueError
from apml_plugin.functional import REDUCTIONS
from apml_plugin.losses.base import PointLoss, declare
from apml_plugin.losses.mixture.container import Hierarchy, Mixture, as_hierarchy
from apml_plugin.matching import Lengths
from apml_plugin.matching.inputs import check_clouds

FLOOR = 1e-10
"""Smaller eigenvalues count as this one, so that a collapsed component keeps a finite density in float32."""


def log_densities(points: Tensor, mixture: Mixture) -> Tensor:
    """(B, N, K) log N(x_n; component k), without the weights, for points (B, N, D)."""
    # Differences before any product: far from the origin a difference of products would be noise.
    offsets = points[:, :, None] - mixture.means[:, None]
    along = torch.einsum("bkij,bnkj->bnki", mixture.frames, offsets)
    return _log_gaussian(along, mixture.eigenvalues[:, None])


def flat_log_likelihood(points: Tensor, mixture: Mixture) -> Tensor:
    """(B, N) log-density of each point under the whole mixture."""
    points, mixture = _widened(points, mixture)
    return torch.logsumexp(mixture.logits.log_softmax(-1)[:, None] + log_densities(points, mixture), dim=-1)


def responsibilities(points: Tensor, mixture: Mixture) -> tuple[Tensor, Tensor]:
    """(B, N, K) probability of each component given each point, and the (B, N) log-density."""
    points, mixture = _widened(points, mixture)
    joint = mixture.logits.log_softmax(-1)[:, None] + log_densities(points, mixture)
    total = torch.logsumexp(joint, dim=-1)
    return (joint - total[..., None]).exp(), total


def routed_log_likelihoods(points: Tensor, hierarchy: Hierarchy) -> list[Tensor]:
    """For each level, the (B, N) log-density of each point among the components that compete for it.

    On the first level all compete. The component with the largest weighted density takes the point, without a
    gradient, and only its children compete for the point on the next level.
    """
    results = []
    chosen: Tensor | None = None
    for depth, level in enumerate(hierarchy.levels):
        x, level = _widened(points, level)
        weights = hierarchy.log_weights(depth).to(x.dtype)
        if chosen is None:
            joint = weights[:, None] + log_densities(x, level)
            best = joint.detach().argmax(-1)
        else:
            joint = _among_children(x, level, weights, chosen, hierarchy.sizes[depth - 1])
            best = chosen * joint.shape[-1] + joint.detach().argmax(-1)
        results.append(torch.logsumexp(joint, dim=-1))
        chosen = best
    return results


def _among_children(points: Tensor, level: Mixture, weights: Tensor, parents: Tensor, groups: int) -> Tensor:
    """(B, N, c) weighted log-densities of the children of each point's parent (B, N)."""
    batch, count, dim = points.shape
    children = level.components // groups
    # One row per parent: a gather of rows, whose backward pass adds whole rows.
    table = torch.cat([weights[..., None], level.means, level.eigenvalues, level.frames.flatten(2)], dim=-1)
    rows = parents + torch.arange(batch, device=points.device)[:, None] * groups
    gathered = F.embedding(rows, table.reshape(batch * groups, -1)).view(batch, count, children, -1)
    weight, means, eigenvalues, frames = gathered.split([1, dim, dim, dim * dim], dim=-1)
    offsets = points[:, :, None] - means
    along = (frames.unflatten(-1, (dim, dim)) * offsets[..., None, :]).sum(-1)
    value: Tensor = weight[..., 0] + _log_gaussian(along, eigenvalues)
    return value


def _log_gaussian(along: Tensor, eigenvalues: Tensor) -> Tensor:
    """Log-density from the offsets along the axes and the variances of the axes."""
    variances = eigenvalues.clamp_min(FLOOR)
    exponent = (along * along / variances + variances.log()).sum(-1)
    return -0.5 * (exponent + along.shape[-1] * math.log(2 * math.pi))


def _widened(points: Tensor, mixture: Mixture) -> tuple[Tensor, Mixture]:
    """Both in the wider dtype, float32 at least."""
    dtype = torch.promote_types(torch.promote_types(points.dtype, mixture.means.dtype), torch.float32)
    if all(t.dtype == dtype for t in mixture.tensors):
        return points.to(dtype), mixture
    return points.to(dtype), mixture.to(dtype)


class Likelihood(PointLoss):
    """Negative log-likelihood of a cloud under a mixture; subclasses define :meth:`log_likelihood`."""

    def __init__(self, reduction: str = "mean", check_finite: bool = True) -> None:
        super().__init__()
        self.reduction = one_of("reduction", reduction, REDUCTIONS)
        self.check_finite = flag("check_finite", check_finite)

    def log_likelihood(self, hierarchy: Hierarchy, points: Tensor) -> Tensor:
        """(B, N) for points (B, N, D)."""
        raise NotImplementedError

    def forward(self, pred: Any, gt: Tensor, pred_lengths: Lengths = None, gt_lengths: Lengths = None) -> Tensor:
        hierarchy = as_hierarchy(self.needs, pred)
        if pred_lengths is not None:
            raise LossArgumentError(
                f"pred_lengths={pred_lengths!r}: a mixture has no padding to leave out; give gt_lengths alone"
            )
        clouds = check_clouds(hierarchy.levels[0].means, gt, None, gt_lengths, check_finite=self.check_finite)
        gt = clouds.gt
        counts = torch.tensor(clouds.masses, device=gt.device)
        valid = torch.arange(gt.shape[1], device=gt.device) < counts[:, None]
        if clouds.ragged:  # padding must not reach the sums, and it may be NaN
            gt = torch.where(valid[..., None], gt, 0.0)
        nll = torch.where(valid, -self.log_likelihood(hierarchy, gt), 0.0).sum(1)
        if self.reduction != "sum":
            nll = nll / counts.clamp_min(1)
        if self.reduction == "none":
            return nll
        if not len(nll):
            return nll.sum()
        return nll.mean()


@declare(takes="a mixture and a cloud")
class HGMM(Likelihood):
    """Negative log-likelihood of gt under a hierarchy of mixtures, summed over the levels (PointGMM, CVPR 2020).

    On each level a point counts with its log-density among the components that compete for it: all on the first
    level, on the next only the children of the component that fitted it best. ``HGMM()(mixture, gt)``; the mixture is a
    :class:`Hierarchy`, a list of :class:`Mixture`, or a model's :class:`MixtureOutput`. In nats, unbounded below
    (the density of a flat component has no bound).

    Args:
        reduction: ``"mean"`` over points and batch, ``"sum"`` over the points, averaged over the batch, or
            ``"none"``: the means over the points, (B,).
        check_finite: raise an error for NaN and Inf in gt.
    """

    needs = (
        "HGMM needs a mixture and a cloud: HGMM()(Hierarchy([Mixture(logits, means, frames, eigenvalues), ...]), gt)"
    )

    def log_likelihood(self, hierarchy: Hierarchy, points: Tensor) -> Tensor:
        return torch.stack(routed_log_likelihoods(points, hierarchy)).sum(0)


@declare(takes="a mixture and a cloud")
class GMM(Likelihood):
    """Negative log-likelihood of gt under one mixture; of a hierarchy, under its last level.

    ``GMM()(mixture, gt)``, the mixture a :class:`Mixture` or anything that HGMM takes. In nats, unbounded below.

    Args:
        reduction: ``"mean"`` over points and batch, ``"sum"`` over the points, averaged over the batch, or
            ``"none"``: the means over the points, (B,).
        weights: of a hierarchy's last level. ``"tree"``: products of the weights from the root down, the distribution
            that is sampled from; ``"softmax"``: its logits compete all with all, the published flat variant.
        check_finite: raise an error for NaN and Inf in gt.
    """

    needs = "GMM needs a mixture and a cloud: GMM()(Mixture(logits, means, frames, eigenvalues), gt)"

    def __init__(self, reduction: str = "mean", weights: str = "tree", check_finite: bool = True) -> None:
        super().__init__(reduction, check_finite)
        self.weights = one_of("weights", weights, ("tree", "softmax"))

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
