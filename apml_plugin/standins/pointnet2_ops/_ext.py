"""Stand-in for ``pointnet2_ops._ext``: what :mod:`.pointnet2_utils` wraps, for hosts that wrap it themselves.

Nothing here is differentiable: the ``..._grad`` functions are what a backward pass calls. Distances are squared.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import pointnet2_utils as utils

furthest_point_sampling = utils.furthest_point_sample
gather_points = torch.no_grad()(utils.gather_operation)
group_points = torch.no_grad()(utils.grouping_operation)
three_interpolate = torch.no_grad()(utils.three_interpolate)


def gather_points_grad(grad_out: Tensor, idx: Tensor, n: int) -> Tensor:
    """Gradient (B, C, n) of what was gathered, from (B, C, m) and ``idx`` (B, m)."""
    result = torch.zeros(*grad_out.shape[:2], n, dtype=grad_out.dtype, device=grad_out.device)
    return result.scatter_add_(2, idx.long()[:, None].expand_as(grad_out), grad_out.detach())


def group_points_grad(grad_out: Tensor, idx: Tensor, n: int) -> Tensor:
    """Gradient (B, C, n) of what was grouped, from (B, C, p, s) and ``idx`` (B, p, s)."""
    return gather_points_grad(grad_out.flatten(2), idx.flatten(1), n)


def three_interpolate_grad(grad_out: Tensor, idx: Tensor, weight: Tensor, m: int) -> Tensor:
    """Gradient (B, C, m) of what was interpolated, from (B, C, n), ``idx`` and ``weight`` (B, n, 3)."""
    return group_points_grad(grad_out[..., None] * weight[:, None], idx, m)


def three_nn(unknown: Tensor, known: Tensor) -> list[Tensor]:
    return knn_query(known, unknown, 3)


def knn_query(xyz: Tensor, new_xyz: Tensor, nsample: int) -> list[Tensor]:
    far, idx = utils.knn_query(nsample, xyz, new_xyz)
    return [far.square_(), idx]


def ball_query(new_xyz: Tensor, xyz: Tensor, radius: float, nsample: int) -> Tensor:
    return utils.ball_query(radius, nsample, xyz, new_xyz)
