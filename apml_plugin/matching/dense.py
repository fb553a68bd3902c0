"""The definition of APML, written out: O(N M) memory, differentiable all the way.

Every other backend is judged by this one. Step numbers are those of apml.md, after
APML (arXiv 2509.08104), section 3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from apml_plugin.matching.settings import Settings
from apml_plugin.matching.temperature import inverse_temperature


def pairwise_cost(pred: Tensor, gt: Tensor) -> Tensor:
    """Euclidean distances (..., N, M) of (..., N, D) and (..., M, D), from explicit differences (step 1).

    Never through a matrix product: that loses all digits far from the origin. One coordinate at a time, in
    order, so that memory stays at N M and exact ties come out equal on every backend. The derivative at
    distance 0 is 0.
    """
    squared = torch.zeros((), dtype=pred.dtype, device=pred.device)
    for k in range(pred.shape[-1]):
        difference = pred[..., :, None, k] - gt[..., None, :, k]
        squared = squared + difference * difference
    return root(squared)


def root(squared: Tensor) -> Tensor:
    """Square root whose derivative at 0 is 0, the subgradient that moves nothing. NaN stays NaN."""
    same = squared == 0
    return torch.where(same, 0.0, torch.where(same, 1.0, squared).sqrt())


def pull(p: Tensor, cost: Tensor) -> Tensor:
    """``P_ij / d_ij``, 0 where ``d_ij = 0``: what the difference of a pair is multiplied by in the gradient."""
    same = cost == 0
    return torch.where(same, 0.0, p / torch.where(same, 1.0, cost))


def adaptive_softmin(cost: Tensor, settings: Settings) -> Tensor:
    """Softmin along the last axis at the temperature that gives the nearest at least p_min (steps 2 and 3)."""
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
    """The plan (..., N, M) of a cost (..., N, M) with N, M >= 1 (steps 2 to 5)."""
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
    """Losses (B,) and, with the plan held constant, their gradients (steps 6 and 7).

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
    """Losses (B,) whose autograd goes through temperature, softmin and Sinkhorn as well."""
    cost = pairwise_cost(pred, gt)
    return (plan(cost, settings) * cost).sum(dim=(-1, -2))
