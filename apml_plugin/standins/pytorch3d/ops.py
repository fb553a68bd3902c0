"""Stand-in for ``pytorch3d.ops``: neighbours, balls, furthest points and normals of padded batches of clouds.

Clouds are (N, P, D) with ``lengths`` (N,), how many points of each sample count. Indices are int64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from apml_plugin.standins.absent import absent, also
from apml_plugin.standins.nearest import furthest, gather, nearest, squared_distance
from apml_plugin.standins.pointnet2_ops.pointnet2_utils import ball_query as _balls


class KNN(NamedTuple):
    """What a query found: distances and indices (N, P1, K), and the points themselves (N, P1, K, D) or None."""

    dists: Tensor
    idx: Tensor
    knn: Tensor | None


def knn_points(
    p1: Tensor,
    p2: Tensor,
    lengths1: Tensor | None = None,
    lengths2: Tensor | None = None,
    norm: int = 2,
    K: int = 1,
    version: int = -1,
    return_nn: bool = False,
    return_sorted: bool = True,
) -> KNN:
    """The K nearest of ``p2`` (N, P2, D) for each of ``p1`` (N, P1, D), nearest first, the lower index on ties.

    Distances are squared Euclidean ones, or with ``norm=1`` sums of absolute differences; gradients go to both
    clouds. Where there is no point, or no K-th one, distance, index and point are 0.
    ``version`` and ``return_sorted`` are not looked at.

    Raises:
        ValueError: clouds that do not fit each other, a length beyond its cloud, or another norm.
    """
    if norm not in (1, 2):
        raise ValueError(f"norm must be 1 or 2, got {norm!r}")
    of_1, of_2 = _both(p1, p2, lengths1, lengths2)
    distance = squared_distance if norm == 2 else _absolute
    idx = torch.zeros((*p1.shape[:2], K), dtype=torch.int64, device=p1.device)
    for n, (a, b) in enumerate(zip(of_1.tolist(), of_2.tolist(), strict=True)):
        if k := min(b, K):
            idx[n, :a, :k] = nearest(p1[n : n + 1, :a].detach(), p2[n : n + 1, :b].detach(), k, distance)[1][0]
    there = _rank(p1, of_1)[:, :, None] & (torch.arange(K, device=p1.device) < of_2[:, None])[:, None]
    return _found(p1, p2, idx, there, distance, return_nn)


def knn_gather(x: Tensor, idx: Tensor, lengths: Tensor | None = None) -> Tensor:
    """``x[n, idx[n, l, k]]`` as (N, L, K, U) for x (N, M, U), and 0 where ``k >= lengths[n]``."""
    if len(x) != len(idx):
        raise ValueError(f"x and idx must have the same batch size, got {len(x)} and {len(idx)}")
    count = lengths_of(x, lengths, "lengths")
    there = torch.arange(idx.shape[2], device=x.device) < count[:, None]
    return _taken(x, idx, there[:, None].expand_as(idx))


def ball_query(
    p1: Tensor,
    p2: Tensor,
    lengths1: Tensor | None = None,
    lengths2: Tensor | None = None,
    K: int = 500,
    radius: float = 0.2,
    return_nn: bool = True,
    skip_points_outside_cube: bool = False,
) -> KNN:
    """The first K of ``p2`` (N, P2, D), by index, closer than ``radius`` to each of ``p1`` (N, P1, D).

    Distances are squared Euclidean ones with gradients to both clouds. Free places have index -1, and distance and
    point 0. ``skip_points_outside_cube``, which only saves time, is not looked at.
    """
    of_1, of_2 = _both(p1, p2, lengths1, lengths2)
    idx = torch.full((*p1.shape[:2], K), -1, dtype=torch.int64, device=p1.device)
    for n, (a, b) in enumerate(zip(of_1.tolist(), of_2.tolist(), strict=True)):
        hits = _balls(radius, K, p2[n : n + 1, :b].detach(), p1[n : n + 1, :a].detach(), fill=-1)
        idx[n, :a] = hits[0].long()
    return _found(p1, p2, idx, idx >= 0, squared_distance, return_nn)


def sample_farthest_points(
    points: Tensor,
    lengths: Tensor | None = None,
    K: int | Sequence[int] | Tensor = 50,
    random_start_point: bool = False,
) -> tuple[Tensor, Tensor]:
    """K points of (N, P, D), each the furthest from those before it: the points (N, K, D) and their indices (N, K).

    Starts at index 0 or a random one. ``K`` may differ from sample to sample; places beyond it, or beyond the
    cloud's length, have index -1 and point 0. Distances are compared in float32; the points keep their dtype and
    their gradient.
    """
    count = lengths_of(points, lengths, "lengths")
    most = torch.as_tensor(K, dtype=torch.int64, device=points.device).expand(len(points))
    start = torch.zeros_like(count)
    if random_start_point:
        start = (torch.rand(len(points), device=points.device) * count).long()
    size = int(most.max()) if len(points) else 0
    gap = torch.full(points.shape[:2], torch.inf, device=points.device).masked_fill_(~_rank(points, count), -1.0)
    idx = furthest(points.detach().float(), size, gap, start)
    there = torch.arange(size, device=points.device) < torch.minimum(most, count)[:, None]
    idx = idx.where(there, -1)
    return _taken(points, idx[:, None], there[:, None])[:, 0], idx


def estimate_pointcloud_normals(
    pointclouds: Any,
    neighborhood_size: int = 50,
    disambiguate_directions: bool = True,
    *,
    use_symeig_workaround: bool = True,
) -> Tensor:
    """Unit normals (N, P, 3); the first vectors of :func:`estimate_pointcloud_local_coord_frames`."""
    return estimate_pointcloud_local_coord_frames(pointclouds, neighborhood_size, disambiguate_directions)[1][..., 0]


def estimate_pointcloud_local_coord_frames(
    pointclouds: Any,
    neighborhood_size: int = 50,
    disambiguate_directions: bool = True,
    *,
    use_symeig_workaround: bool = True,
) -> tuple[Tensor, Tensor]:
    """Principal curvatures (N, P, 3), smallest first, and their directions as columns (N, P, 3, 3).

    They are eigenvalues and eigenvectors of the covariance of each point's nearest ``neighborhood_size`` points,
    itself included. ``disambiguate_directions`` turns the first and the last to where at least half of these lie,
    and makes the second their cross product. Gradients go to the points; between directions of equal curvature,
    where no derivative exists, none flows. ``use_symeig_workaround`` is not looked at.

    Raises:
        ValueError: points other than (N, P, 3), or a cloud with no more than ``neighborhood_size`` points.
    """
    points, count = pointclouds, None
    if is_pointclouds(pointclouds):
        points, count = pointclouds.points_padded(), pointclouds.num_points_per_cloud()
    count = lengths_of(points, count, "pointclouds")
    if points.dim() != 3 or points.shape[2] != 3 or bool((count <= neighborhood_size).any()):
        raise ValueError(
            f"pointclouds must be (N, P, 3) with more than neighborhood_size = {neighborhood_size} points each, "
            f"got {tuple(points.shape)} with {count.tolist()} points"
        )
    near = knn_points(points, points, count, count, K=neighborhood_size, return_nn=True).knn
    assert near is not None
    spread = near - near.mean(dim=2, keepdim=True)
    covariance = spread.transpose(2, 3) @ spread / neighborhood_size
    values, frames = _eigen(covariance)
    if disambiguate_directions:
        normal, main = (_turned(points, near, frames[..., i]) for i in (0, 2))
        frames = torch.stack([normal, torch.linalg.cross(normal, main), main], dim=3)
    return values, frames


def is_pointclouds(pcl: Any) -> bool:
    """Whether it is a ``Pointclouds``, told by its methods."""
    return hasattr(pcl, "points_padded") and hasattr(pcl, "num_points_per_cloud")


def lengths_of(points: Tensor, lengths: Tensor | None, name: str) -> Tensor:
    """``lengths`` as int64 (N,), all points where it is None; ValueError where they do not fit the cloud (N, P, D)."""
    n, most = points.shape[:2]
    if lengths is None:
        return torch.full((n,), most, dtype=torch.int64, device=points.device)
    if lengths.shape != (n,) or bool((lengths > most).any()) or bool((lengths < 0).any()):
        raise ValueError(f"{name} must be (N,) = ({n},) of 0 to {most} points, got {lengths.tolist()}")
    return lengths.long()


def _both(p1: Tensor, p2: Tensor, lengths1: Tensor | None, lengths2: Tensor | None) -> tuple[Tensor, Tensor]:
    if p1.shape[0] != p2.shape[0] or p1.shape[2] != p2.shape[2]:
        raise ValueError(f"p1 (N, P1, D) and p2 (N, P2, D) do not fit: {tuple(p1.shape)} and {tuple(p2.shape)}")
    return lengths_of(p1, lengths1, "lengths1"), lengths_of(p2, lengths2, "lengths2")


def _rank(points: Tensor, lengths: Tensor) -> Tensor:
    return torch.arange(points.shape[1], device=points.device) < lengths[:, None]


def _absolute(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).abs().sum(dim=-1)


def _found(p1: Tensor, p2: Tensor, idx: Tensor, there: Tensor, distance: Any, return_nn: bool) -> KNN:
    if p2.shape[1] == 0:  # nothing to take from, not even for what is masked
        p2 = torch.cat([p2, p2.new_zeros(len(p2), 1, p2.shape[2])], dim=1)
    points = gather(p2, idx.clamp_min(0))
    # Masked before the difference is taken: padding may hold anything, infinities too.
    inside = there[..., None]
    dists = distance(p1[:, :, None].where(inside, 0.0), points.where(inside, 0.0))
    return KNN(dists, idx, points.where(inside, 0.0) if return_nn else None)


def _taken(x: Tensor, idx: Tensor, there: Tensor) -> Tensor:
    return gather(x, idx.clamp_min(0)).where(there[..., None], 0.0)


def _eigen(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors, whose derivative leaves out pairs of equal eigenvalues instead of being NaN."""
    with torch.no_grad():
        values, vectors = torch.linalg.eigh(matrix)
        gap = values[..., None, :] - values[..., None]
        equal = gap.abs() <= 8 * torch.finfo(gap.dtype).eps * values[..., -1:, None].abs()
        inverse = torch.where(equal, 0.0, 1 / gap)
    # Zero in value; its derivative is that of the matrix, seen from the eigenvectors.
    change = vectors.transpose(-1, -2) @ (matrix - matrix.detach()) @ vectors
    return values + change.diagonal(dim1=-2, dim2=-1), vectors + vectors @ (change * inverse)


def _turned(points: Tensor, near: Tensor, direction: Tensor) -> Tensor:
    side = ((near - points[:, :, None]) * direction[:, :, None]).sum(dim=3) > 0
    return torch.where((side.sum(dim=2) < 0.5 * near.shape[2])[..., None], -direction, direction)


also(__name__, "knn", "ball_query", "sample_farthest_points", "points_normals")
__getattr__ = absent("pytorch3d.ops", "Install the real one: https://github.com/facebookresearch/pytorch3d")
