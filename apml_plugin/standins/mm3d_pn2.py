"""Stand-in for ``mm3d_pn2``, which PointAttN and MVP carry: :mod:`.pointnet2_ops` under other names.

Unlike there points near the origin are sampled too, and balls have a least radius.
"""

from __future__ import annotations

from torch import Tensor

from apml_plugin.matching.exact import FAR, furthest, within
from apml_plugin.standins.absent import absent
from apml_plugin.standins.pointnet2_ops import pointnet2_utils as _utils
from apml_plugin.standins.pointnet2_ops.pointnet2_utils import grouping_operation, three_interpolate, three_nn

__all__ = ["grouping_operation", "three_interpolate", "three_nn"]

gather_points = _utils.gather_operation


def furthest_point_sample(points_xyz: Tensor, num_points: int) -> Tensor:
    """Indices int32 (B, num_points) of (B, N, 3), from index 0, each the furthest from those before it."""
    return furthest(points_xyz, int(num_points), points_xyz.new_full(points_xyz.shape[:2], FAR)).int()


def ball_query(min_radius: float, max_radius: float, sample_num: int, xyz: Tensor, center_xyz: Tensor) -> Tensor:
    """Indices int32 (B, p, sample_num): at the centre or from ``min_radius`` to below ``max_radius`` away."""
    return within(max_radius, sample_num, xyz, center_xyz, min_radius).int()


def knn(k: int, xyz: Tensor, center_xyz: Tensor | None = None, transposed: bool = False) -> Tensor:
    """Indices int32 (B, k, p) of the nearest of (B, N, 3), or of (B, 3, N) if ``transposed``, nearest first."""
    centres = xyz if center_xyz is None else center_xyz
    if transposed:
        xyz, centres = xyz.transpose(1, 2), centres.transpose(1, 2)
    return _utils.knn_query(k, xyz, centres)[1].transpose(1, 2).contiguous()


__getattr__ = absent("mm3d_pn2")
