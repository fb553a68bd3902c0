"""The definition of APML (arXiv 2509.08104, section 3), written out: O(N M) memory, differentiable throughout.

The tests compare every other backend with this one. The steps: costs; temperatures; one-sided softmins of rows and
columns; their mean; Sinkhorn normalisation; the loss ``sum_ij P_ij d_ij``; its gradient with the plan held constant.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from apml_plugin.matching.settings import Settings

MARGIN = 1e-8
"""Added to the gap between the two nearest costs, so that the temperature is finite at a tie."""


def pairwise_cost(pred: Tensor, gt: Tensor) -> Tensor:
    """Euclidean distances (..., N, M) of (..., N, D) and (..., M, D), from explicit differences.

    Never through a matrix product, which loses all digits far from the origin. One coordinate at a time, in order, so
    that memory stays at N M and equal distances are equal on every backend. The derivative at distance 0 is 0.
    """
    squared = torch.zeros((), dtype=pred.dtype, device=pred.device)
    for k in range(pred.shape[-1]):
        difference = pred[..., :, None, k] - gt[..., None, :, k]
        squared = squared + difference * difference
    return root(squared)


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
    rows = adaptive_softmin(cost, settings)
    columns = adaptive_softmin(cost.transpose(-1, -2), settings).transpose(-1, -2)
    p = (rows + columns) / 2
    for _ in range(settings.iterations):
        p = p / (p.sum(dim=-1, keepdim=True) + settings.eps)
        p = p / (p.sum(dim=-2, keepdim=True) + settings.eps)
    return p


def solve(
    pred: Tensor, gt: Tensor, settings: Settings, gradients: bool = True
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Losses (B,) and, with the plan held constant, their gradients.

    ``dL/dx_i = sum_j P_ij (x_i - y_j) / d_ij``, 0 where ``d_ij = 0``.
    """
    cost = pairwise_cost(pred, gt)
    p = plan(cost, settings)
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
