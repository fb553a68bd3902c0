"""Stand-in for ``pointnet2_cuda``: :mod:`.pointnet2_ops`, results written into the caller's last tensor; returns 1.

Sizes come first in every call and are not looked at: the tensors tell. Indices are int32. Unlike pointnet2_ops it
samples points near the origin too.
"""

from __future__ import annotations

from torch import Tensor

from apml_plugin.standins.absent import absent
from apml_plugin.standins.inplace import write
from apml_plugin.standins.nearest import furthest
from apml_plugin.standins.pointnet2_ops import _ext


def furthest_point_sampling_wrapper(b: int, n: int, m: int, points: Tensor, temp: Tensor, idx: Tensor) -> int:
    """``idx`` (B, m) of points (B, N, 3), from index 0; ``temp`` (B, N), at first 1e10, holds distances to them."""
    return write(idx, furthest(points, int(m), temp))


def gather_points_wrapper(b: int, c: int, n: int, m: int, points: Tensor, idx: Tensor, out: Tensor) -> int:
    """Columns ``idx`` (B, m) of (B, C, N) into (B, C, m)."""
    return write(out, _ext.gather_points(points, idx))


def gather_points_grad_wrapper(b: int, c: int, n: int, m: int, grad_out: Tensor, idx: Tensor, grad: Tensor) -> int:
    """Gradient (B, C, N) from (B, C, m); added to what is there."""
    return write(grad, grad + _ext.gather_points_grad(grad_out, idx, grad.shape[2]))


def group_points_wrapper(b: int, c: int, n: int, p: int, s: int, points: Tensor, idx: Tensor, out: Tensor) -> int:
    """Columns ``idx`` (B, p, s) of (B, C, N) into (B, C, p, s)."""
    return write(out, _ext.group_points(points, idx))


def group_points_grad_wrapper(
    b: int, c: int, n: int, p: int, s: int, grad_out: Tensor, idx: Tensor, grad: Tensor
) -> int:
    """Gradient (B, C, N) from (B, C, p, s); added to what is there."""
    return write(grad, grad + _ext.group_points_grad(grad_out, idx, grad.shape[2]))


def three_nn_wrapper(b: int, n: int, m: int, unknown: Tensor, known: Tensor, dist2: Tensor, idx: Tensor) -> int:
    """Squared distances and indices (B, n, 3) of the three nearest of ``known`` (B, m, 3)."""
    near, index = _ext.three_nn(unknown, known)
    return write(dist2, near) and write(idx, index)


def three_interpolate_wrapper(
    b: int, c: int, m: int, n: int, points: Tensor, idx: Tensor, weight: Tensor, out: Tensor
) -> int:
    """Weighted sums (B, C, n) of three columns of (B, C, m) each."""
    return write(out, _ext.three_interpolate(points, idx, weight))


def three_interpolate_grad_wrapper(
    b: int, c: int, n: int, m: int, grad_out: Tensor, idx: Tensor, weight: Tensor, grad: Tensor
) -> int:
    """Gradient (B, C, m) from (B, C, n); added to what is there."""
    return write(grad, grad + _ext.three_interpolate_grad(grad_out, idx, weight, grad.shape[2]))


def ball_query_wrapper(
    b: int, n: int, m: int, radius: float, nsample: int, new_xyz: Tensor, xyz: Tensor, idx: Tensor
) -> int:
    """The first ``nsample`` of ``xyz`` (B, N, 3) closer than ``radius`` to each of ``new_xyz`` (B, m, 3)."""
    return write(idx, _ext.ball_query(new_xyz, xyz, radius, nsample))


__getattr__ = absent("pointnet2_cuda", "Compile the real one with the host's own setup.py (needs a CUDA compiler)")
