"""Stand-in for ``fps_cuda``: furthest points from index 0, by the names of the three modules that are called so."""

from __future__ import annotations

from torch import Tensor

from apml_plugin.matching.exact import FAR, furthest
from apml_plugin.standins.absent import absent
from apml_plugin.standins.inplace import write


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


__getattr__ = absent("fps_cuda")
