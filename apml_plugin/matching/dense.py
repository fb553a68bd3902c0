"""The definition of APML (arXiv 2509.08104, section 3), written out: O(N M) memory, differentiable throughout.

The tests compare every other backend with this one. The steps: costs; temperatures; one-sided softmins of rows and
columns; their mean; Sinkhorn normalisation; the loss ``sum_ij P_ij d_ij``; its gradient with the plan held constant.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from apml_plugin.matching.settings import Settings

LOST = 1e-6
"""Entries too small for float32 must not grow beyond this share of a point's mass."""

MARGIN = 1e-8
"""Added to the gap between the two nearest costs, so that the temperature is finite at a tie."""


def pairwise_cost(pred: Tensor, gt: Tensor) -> Tensor:
    """Euclidean distances (..., N, M) of (..., N, D) and (..., M, D), from explicit differences.

    Never through a matrix product, which loses all digits far from the origin. One coordinate at a time, in order, so
    that memory stays at N M and equal distances are equal on every backend. The derivative at distance 0 is 0. Squares
    are those of coordinates in parts of the clouds' extent: none is too large or too small for the dtype.
    """
    unit = unit_of(pred, gt)
    pred, gt = pred / unit, gt / unit
    squared = torch.zeros((), dtype=pred.dtype, device=pred.device)
    for k in range(pred.shape[-1]):
        difference = pred[..., :, None, k] - gt[..., None, :, k]
        squared = squared + difference * difference
    return root(squared) * unit


def unit_of(pred: Tensor, gt: Tensor) -> Tensor:
    """The power of two (..., 1, 1) near the extent of (..., N, D) and (..., M, D): to divide by it rounds nothing."""
    pred, gt = pred.detach(), gt.detach()
    if pred.numel() == 0 or gt.numel() == 0:
        return pred.new_ones(())
    high = torch.maximum(pred.amax(dim=-2, keepdim=True), gt.amax(dim=-2, keepdim=True))
    low = torch.minimum(pred.amin(dim=-2, keepdim=True), gt.amin(dim=-2, keepdim=True))
    extent = (high / 2 - low / 2).amax(dim=-1, keepdim=True)
    info = torch.finfo(pred.dtype)
    return torch.where(extent > 0, extent, 1.0).clamp(info.tiny, info.max / 4).log2().floor().exp2()


def root(squared: Tensor) -> Tensor:
    """Square root whose derivative at 0 is 0. NaN stays NaN."""
    same = squared == 0
    return torch.where(same, 0.0, torch.where(same, 1.0, squared).sqrt())


def pull(p: Tensor, cost: Tensor) -> Tensor:
    """``P_ij / d_ij``, 0 where ``d_ij = 0``: what the difference of a pair is multiplied by in the gradient."""
    same = cost == 0
    return torch.where(same, 0.0, p / torch.where(same, 1.0, cost))


def log_odds(candidates: int, p_min: float) -> float:
    """``ln((K - 1) / (1 - p_min))``: how many nats the runner-up lies below the nearest of K points.

    0 for one candidate, where the softmin is 1 whatever the temperature.
    """
    if candidates < 2:
        return 0.0
    return math.log((candidates - 1) / (1.0 - p_min))


def inverse_temperature(gap: Tensor, candidates: int, p_min: float) -> Tensor:
    """``T = -ln((1 - p_min) / (K - 1)) / (gap + margin)``; ``gap`` is second-nearest minus nearest cost."""
    return log_odds(candidates, p_min) / (gap + MARGIN)


def support_radius(nearest: Tensor, inverse_temperature: Tensor, threshold: Tensor) -> Tensor:
    """The cost below which a point's unnormalised similarity exceeds its ``threshold``: a ball around it.

    Infinite with the inverse temperature 0 of one candidate, or of two with p_min = 0: all have similarity 1.
    """
    return nearest - threshold.log() / inverse_temperature


def adaptive_softmin(cost: Tensor, settings: Settings) -> Tensor:
    """Softmin along the last axis at the temperature that gives the nearest at least p_min."""
    candidates = cost.shape[-1]
    if candidates == 1:
        return torch.ones_like(cost)
    nearest, second = cost.topk(2, dim=-1, largest=False).values.unbind(-1)
    gap = (second - nearest)[..., None]
    weights = torch.softmax((nearest[..., None] - cost) * inverse_temperature(gap, candidates, settings.p_min), dim=-1)
    if settings.ties == "uniform":
        weights = torch.where(gap == 0, 1.0 / candidates, weights)
    return weights


def plan(cost: Tensor, settings: Settings) -> Tensor:
    """The plan (..., N, M) of a cost (..., N, M) with N, M >= 1."""
    return _plan(cost, settings)[0]


def _plan(cost: Tensor, settings: Settings) -> tuple[Tensor, float]:
    """The plan, and the logarithm of the most that any entry may have grown by in the iterations."""
    rows = adaptive_softmin(cost, settings)
    columns = adaptive_softmin(cost.transpose(-1, -2), settings).transpose(-1, -2)
    p = (rows + columns) / 2
    factors = {-1: torch.zeros(1), -2: torch.zeros(1)}  # logarithms, of rows and of columns
    for _ in range(settings.iterations):
        for dim in factors:
            total = p.sum(dim=dim, keepdim=True) + settings.eps
            p = p / total
            factors[dim] = factors[dim].to(total.device) - total.detach().log()
    return p, sum(float(factor.max()) for factor in factors.values() if factor.numel())


def plan_of(pred: Tensor, gt: Tensor, settings: Settings) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The clouds (..., N, D) and (..., M, D), their costs and their plan.

    All of them in float64 where float32 would lose entries that the iterations make large.
    """
    cost = pairwise_cost(pred, gt)
    p, growth = _plan(cost, settings)
    lost = math.log(torch.finfo(cost.dtype).tiny) + growth > math.log(LOST)
    if lost and cost.dtype == torch.float32 and cost.device.type != "mps":
        return plan_of(pred.double(), gt.double(), settings)
    return pred, gt, cost, p


def solve(
    pred: Tensor, gt: Tensor, settings: Settings, gradients: bool = True
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Losses (B,) and, with the plan held constant, their gradients, in the dtype of :func:`plan_of`.

    ``dL/dx_i = sum_j P_ij (x_i - y_j) / d_ij``, 0 where ``d_ij = 0``.
    """
    pred, gt, cost, p = plan_of(pred, gt, settings)
    losses = (p * cost).sum(dim=(-1, -2))
    if not gradients:
        return losses, None, None
    weight = pull(p, cost)
    pred_grad, gt_grad = torch.empty_like(pred), torch.empty_like(gt)
    for k in range(pred.shape[-1]):
        force = weight * (pred[..., :, None, k] - gt[..., None, :, k])
        pred_grad[..., k] = force.sum(dim=-1)
        gt_grad[..., k] = -force.sum(dim=-2)
    return losses, pred_grad, gt_grad


def differentiable_loss(pred: Tensor, gt: Tensor, settings: Settings) -> Tensor:
    """Losses (B,) that autograd differentiates through temperature, softmin and Sinkhorn too."""
    cost = pairwise_cost(pred, gt)
    return (plan(cost, settings) * cost).sum(dim=(-1, -2))
