"""Stand-in for ``pointnet2_ops._ext``: the compiled functions under the package, for hosts that call them directly.

Nothing here is differentiable: the ``..._grad`` functions are what a backward pass calls. Distances are squared.
"""

from __future__ import annotations

import torch
from torch import Tensor

from apml_plugin.standins import pointnet2_ops as _ops

furthest_point_sampling = _ops.furthest_point_sample
gather_points = torch.no_grad()(_ops.gather_operation)
group_points = torch.no_grad()(_ops.grouping_operation)
three_interpolate = torch.no_grad()(_ops.three_interpolate)


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
    distance, idx = _ops.knn_query(nsample, xyz, new_xyz)
    return [distance.square_(), idx]


def ball_query(new_xyz: Tensor, xyz: Tensor, radius: float, nsample: int) -> Tensor:
    return _ops.ball_query(radius, nsample, xyz, new_xyz)
