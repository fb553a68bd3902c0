"""Stand-in for ``pointnet2_cuda``: :mod:`.pointnet2_ops`, results written into the caller's last tensors.

Every call begins with sizes, which the tensors tell as well, and returns 1. Gradients are added to what is there.
"""

from __future__ import annotations

from torch import Tensor

from apml_plugin.matching.exact import furthest
from apml_plugin.standins.absent import absent
from apml_plugin.standins.inplace import into
from apml_plugin.standins.pointnet2_ops import _ext


def _furthest(points: Tensor, temp: Tensor, idx: Tensor) -> Tensor:
    # Unlike pointnet2_ops it samples points near the origin too; temp, at first 1e10, is left with the distances.
    return furthest(points, idx.shape[1], temp)


furthest_point_sampling_wrapper = into(1, 3, _furthest)
gather_points_wrapper = into(1, 4, lambda points, idx, out: _ext.gather_points(points, idx))
gather_points_grad_wrapper = into(1, 4, lambda g, idx, out: out + _ext.gather_points_grad(g, idx, out.shape[2]))
group_points_wrapper = into(1, 5, lambda points, idx, out: _ext.group_points(points, idx))
group_points_grad_wrapper = into(1, 5, lambda g, idx, out: out + _ext.group_points_grad(g, idx, out.shape[2]))
three_nn_wrapper = into(2, 3, lambda unknown, known, dist2, idx: _ext.three_nn(unknown, known))
three_interpolate_wrapper = into(1, 4, lambda points, idx, w, out: _ext.three_interpolate(points, idx, w))
three_interpolate_grad_wrapper = into(
    1, 4, lambda g, idx, w, out: out + _ext.three_interpolate_grad(g, idx, w, out.shape[2])
)
ball_query_wrapper = into(1, 3, lambda radius, n, new_xyz, xyz, idx: _ext.ball_query(new_xyz, xyz, radius, n))

__getattr__ = absent("pointnet2_cuda")
