"""Stand-in for ``fps_cuda``: furthest points from index 0, by the names of the three modules that are called so."""

from __future__ import annotations

from torch import Tensor

from apml_plugin.standins.absent import absent
from apml_plugin.standins.inplace import write
from apml_plugin.standins.nearest import FAR, furthest


def fps(points: Tensor, dis: Tensor, indices: Tensor) -> None:
    """Into ``indices`` (B, m) of points (B, N, 3); ``dis`` (B, N), at first 1e10, holds squared distances to them."""
    write(indices, furthest(points, indices.shape[1], dis))


def farthest_point_sample(points: Tensor, num_centroids: int) -> Tensor:
    """Indices int64 (B, num_centroids) of points (B, 3, N)."""
    return furthest(points.transpose(1, 2), num_centroids, points.new_full(points.shape[::2], FAR))


def farthest_point_sampling(pos: Tensor, idx: Tensor, npoint: int, start_idx: Tensor | None = None) -> None:
    """Into ``idx`` (B, npoint) of points (B, N, C), from ``start_idx`` (B,) if it is not empty."""
    start = 0 if start_idx is None or start_idx.numel() == 0 else start_idx.long()
    write(idx, furthest(pos, npoint, pos.new_full(pos.shape[:2], FAR), start))


__getattr__ = absent("fps_cuda", "Compile the real one with the host's own setup.py (needs a CUDA compiler)")
