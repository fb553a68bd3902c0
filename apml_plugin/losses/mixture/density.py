"""Log-densities of points under mixtures: log-sum-exp of log-weights and log-densities throughout."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from apml_plugin.losses.mixture.container import Hierarchy, Mixture

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
    """For each level the (B, N) log-density of each point among the components that it can choose from.

    On the first level all compete. From there on a point is given to the component with the largest weighted density,
    without a gradient, and only that one's children compete for it on the next level.
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
    # One row per parent: a gather of rows, whose backward pass adds rows, not single numbers.
    table = torch.cat([weights[..., None], level.means, level.eigenvalues, level.frames.flatten(2)], dim=-1)
    rows = parents + torch.arange(batch, device=points.device)[:, None] * groups
    found = F.embedding(rows, table.reshape(batch * groups, -1)).view(batch, count, children, -1)
    weight, means, eigenvalues, frames = found.split([1, dim, dim, dim * dim], dim=-1)
    offsets = points[:, :, None] - means
    along = (frames.unflatten(-1, (dim, dim)) * offsets[..., None, :]).sum(-1)
    return weight[..., 0] + _log_gaussian(along, eigenvalues)


def _log_gaussian(along: Tensor, eigenvalues: Tensor) -> Tensor:
    """Log-density from the offsets along the axes and the variances there."""
    variances = eigenvalues.clamp_min(FLOOR)
    exponent = (along * along / variances + variances.log()).sum(-1)
    return -0.5 * (exponent + along.shape[-1] * math.log(2 * math.pi))


def _widened(points: Tensor, mixture: Mixture) -> tuple[Tensor, Mixture]:
    """Both in the wider dtype, float32 at least."""
    dtype = torch.promote_types(torch.promote_types(points.dtype, mixture.means.dtype), torch.float32)
    if all(t.dtype == dtype for t in mixture.tensors):
        return points.to(dtype), mixture
    return points.to(dtype), mixture.map(lambda t: t.to(dtype))
