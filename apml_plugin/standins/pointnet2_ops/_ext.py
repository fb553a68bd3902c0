"""Stand-in for ``pointnet2_ops._ext``: what :mod:`.pointnet2_utils` wraps, for hosts that wrap it themselves.

Nothing here is differentiable: the ``..._grad`` functions are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import pointnet2_utils as utils


@torch.no_grad()
def gather_points(points: Tensor, idx: Tensor) -> Tensor:
    """Columns ``idx`` (B, m) of (B, C, N) as (B, C, m)."""
    return utils.gather_operation(points, idx)


@torch.no_grad()
def gather_points_grad(grad_out: Tensor, idx: Tensor, n: int) -> Tensor:
    """Gradient (B, C, n) from that of the gathered columns (B, C, m)."""
    result = grad_out.new_zeros(*grad_out.shape[:2], n)
    return result.scatter_add_(2, idx.long()[:, None].expand_as(grad_out), grad_out)


@torch.no_grad()
def group_points(points: Tensor, idx: Tensor) -> Tensor:
    """Columns ``idx`` (B, p, s) of (B, C, N) as (B, C, p, s)."""
    return utils.grouping_operation(points, idx)


def group_points_grad(grad_out: Tensor, idx: Tensor, n: int) -> Tensor:
    """Gradient (B, C, n) from that of the groups (B, C, p, s)."""
    return gather_points_grad(grad_out.flatten(2), idx.flatten(1), n)


def three_nn(unknown: Tensor, known: Tensor) -> list[Tensor]:
    """Squared distances (B, n, 3) and int32 indices of the three nearest."""
    return knn_query(known, unknown, 3)


def knn_query(xyz: Tensor, new_xyz: Tensor, nsample: int) -> list[Tensor]:
    """Squared distances (B, p, nsample) and int32 indices of the nearest."""
    far, idx = utils.knn_query(nsample, xyz, new_xyz)
    return [far.square_(), idx]


@torch.no_grad()
def three_interpolate(points: Tensor, idx: Tensor, weight: Tensor) -> Tensor:
    """Weighted sums (B, C, n) of three columns of (B, C, m) each."""
    return utils.three_interpolate(points, idx, weight)


@torch.no_grad()
def three_interpolate_grad(grad_out: Tensor, idx: Tensor, weight: Tensor, m: int) -> Tensor:
    """Gradient (B, C, m) of what was interpolated."""
    return group_points_grad(grad_out[..., None] * weight[:, None], idx, m)


def furthest_point_sampling(points: Tensor, nsamples: int) -> Tensor:
    """See :func:`.pointnet2_utils.furthest_point_sample`."""
    return utils.furthest_point_sample(points, nsamples)


def ball_query(new_xyz: Tensor, xyz: Tensor, radius: float, nsample: int) -> Tensor:
    """See :func:`.pointnet2_utils.ball_query`."""
    return utils.ball_query(radius, nsample, xyz, new_xyz)
