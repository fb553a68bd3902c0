"""Stand-in for five compiled modules that sample, group and search points.

``fps_cuda``, ``knn_cuda``, ``mm3d_pn2`` (of PointAttN and MVP), ``pointnet2_cuda`` and ``pointops_cuda``: all names of
all five are in each, since none occurs twice. Unlike ``pointnet2_ops`` they sample points near the origin too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from apml_plugin.errors import LossValueError
from apml_plugin.matching.exact import FAR, furthest, nearest, within
from apml_plugin.standins import pointnet2_ops as _ops
from apml_plugin.standins.arguments import into, write
from apml_plugin.standins.pointnet2_ops import _ext, grouping_operation, three_interpolate, three_nn
from apml_plugin.standins.pointnet2_ops import gather_operation as gather_points

__all__ = ["gather_points", "grouping_operation", "three_interpolate", "three_nn"]

# fps_cuda: the names of all three modules that are called so.


def fps(points: Tensor, dis: Tensor, indices: Tensor) -> None:
    """Into ``indices`` (B, m) of points (B, N, D); ``dis`` (B, N), at first 1e10, is left with squared distances."""
    write(indices, furthest(points, indices.shape[1], dis))


def farthest_point_sample(points: Tensor, num_centroids: int) -> Tensor:
    """Indices int64 (B, num_centroids) of points (B, D, N)."""
    return furthest(points.transpose(1, 2), num_centroids, points.new_full(points.shape[::2], FAR))


def farthest_point_sampling(pos: Tensor, idx: Tensor, npoint: int, start_idx: Tensor) -> None:
    """Into ``idx`` (B, npoint) of points (B, N, D), from ``start_idx`` (B,) unless it is empty."""
    start = start_idx.long() if start_idx.numel() else 0
    write(idx, furthest(pos, npoint, pos.new_full(pos.shape[:2], FAR), start))


# knn_cuda


class KNN(nn.Module):
    """``KNN(k, transpose_mode)(ref, query)`` gives distances and int64 indices of the k nearest, nearest first.

    With ``transpose_mode`` clouds are (B, n, d) and results (B, queries, k); without it (B, d, n) and
    (B, k, queries). Distances are Euclidean; of equal ones the lower index comes first. No gradient.
    """

    def __init__(self, k: int, transpose_mode: bool = False) -> None:
        super().__init__()
        self.k = k
        self._t = transpose_mode

    def forward(self, ref: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        """Raises LossValueError for clouds that do not fit each other, and for fewer than k reference points."""
        if not self._t:
            ref, query = ref.transpose(1, 2), query.transpose(1, 2)
        if ref.dim() != 3 or query.dim() != 3 or len(ref) != len(query) or ref.shape[2] != query.shape[2]:
            raise LossValueError(f"KNN: ref and query do not fit each other: {tuple(ref.shape)}, {tuple(query.shape)}")
        if ref.shape[1] < self.k:
            raise LossValueError(f"KNN: ref has {ref.shape[1]} points, fewer than k = {self.k}")
        distance, index = nearest(query, ref, self.k)
        if self._t:
            return distance.sqrt(), index
        return distance.sqrt().transpose(1, 2).contiguous(), index.transpose(1, 2).contiguous()


# mm3d_pn2: with the functions of pointnet2_ops that are imported above.


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
    return _ops.knn_query(k, xyz, centres)[1].transpose(1, 2).contiguous()


# pointnet2_cuda: pointnet2_ops with results written into the last arguments. Every call begins with sizes, which the
# tensors' shapes repeat, and returns 1. Gradients are added to what is there; `temp` is left with the distances.

furthest_point_sampling_wrapper = into(1, 3, lambda points, temp, idx: furthest(points, idx.shape[1], temp))
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

# pointops_cuda: clouds of any sizes, one after the other in (n, 3). ``offset`` (B,) holds where each cloud of ``xyz``
# ends, ``new_offset`` where its results end.


def furthestsampling_cuda(
    b: int, n_max: int, xyz: Tensor, offset: Tensor, new_offset: Tensor, tmp: Tensor, idx: Tensor
) -> None:
    """``idx`` int32 (m,): in each cloud its first point, then each the furthest from those before it."""
    ends, counts = offset.long(), new_offset.long().diff(prepend=new_offset.new_zeros(1))
    sizes = ends.diff(prepend=ends.new_zeros(1))
    starts, rank = ends - sizes, torch.arange(int(sizes.max()), device=xyz.device)
    inside = rank < sizes[:, None]
    clouds = xyz.detach()[(starts[:, None] + rank).clamp(max=len(xyz) - 1)]
    gap = clouds.new_full(inside.shape, FAR).masked_fill_(~inside, -1.0)
    chosen = furthest(clouds, int(counts.max()), gap) + starts[:, None]
    write(idx, torch.cat([row[:count] for row, count in zip(chosen, counts.tolist(), strict=True)]))


def knnquery_cuda(
    m: int, nsample: int, xyz: Tensor, new_xyz: Tensor, offset: Tensor, new_offset: Tensor, idx: Tensor, dist2: Tensor
) -> None:
    """``idx`` int32 and ``dist2`` (m, nsample): the nearest in its own cloud per query, squared distances.

    With fewer points the rest have distance 1e10 and the index of the cloud's first point.
    """
    start = new_start = 0
    for end, new_end in zip(offset.tolist(), new_offset.tolist(), strict=True):
        k = min(int(nsample), end - start)
        near, index = nearest(new_xyz[None, new_start:new_end], xyz[None, start:end], k)
        idx[new_start:new_end], dist2[new_start:new_end] = start, FAR
        idx[new_start:new_end, :k], dist2[new_start:new_end, :k] = (index[0] + start).to(idx.dtype), near[0]
        start, new_start = end, new_end
