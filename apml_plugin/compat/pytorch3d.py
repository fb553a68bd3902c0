"""pytorch3d's functions on point clouds, as of 0.7.9, in any floating dtype and without its compiled part.

``chamfer_distance``, neighbours, balls, furthest points and normals of padded batches of clouds: (N, P, D) with
``lengths`` (N,), how many points of each sample count. Distances are in the clouds' unit, squared for ``norm=2``;
indices are int64. A ``Pointclouds`` is recognised by its methods ``points_padded``, ``num_points_per_cloud`` and
``normals_padded``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from apml_plugin.matching.exact import furthest, gather, nearest, within
from apml_plugin.matching.search import squared_distance


def chamfer_distance(
    x: Any,
    y: Any,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    x_normals: Tensor | None = None,
    y_normals: Tensor | None = None,
    weights: Tensor | None = None,
    batch_reduction: str | None = "mean",
    point_reduction: str | None = "mean",
    norm: int = 2,
    single_directional: bool = False,
    abs_cosine: bool = True,
) -> tuple[Any, Any]:
    """Chamfer distance of clouds x (N, P1, D) and y (N, P2, D), and how much their normals differ.

    Each point of x is compared with the nearest of y, and the other way round unless ``single_directional``; both
    ways are added. The distance is the squared Euclidean one (``norm=2``) or the sum of absolute differences
    (``norm=1``). Normals differ by 1 - cosine, or 1 - |cosine| with ``abs_cosine``. Gradients go to both clouds and
    to the normals; the choice of the nearest has none.

    Args:
        x, y: tensors, or objects with ``points_padded``, ``num_points_per_cloud`` and ``normals_padded``.
        x_lengths, y_lengths: (N,) how many points of each sample count; None: all do. A sample without points adds
            0, and so does the distance to one.
        x_normals, y_normals: (N, P1, D) and (N, P2, D). Both are needed for the second value.
        weights: (N,) not negative; each sample's distances are multiplied by its weight.
        point_reduction: "mean", "sum", "max" (the Hausdorff distance, the larger of both ways) or None.
        batch_reduction: "mean" (over the sum of the weights if given), "sum" or None.

    Returns:
        ``(loss, loss_normals)``, each a scalar; (N,) without a batch reduction; with ``point_reduction=None`` the
        pair of (N, P1) and (N, P2), or the first alone if ``single_directional``. ``loss_normals`` is None without
        normals. If all weights are 0, both are zeros that keep the graph.

    Raises:
        ValueError: an unknown reduction or norm, a batch reduction of unreduced points, "max" with normals, shapes
            that do not fit, a length beyond its cloud, or a weight below 0.
    """
    if batch_reduction not in ("mean", "sum", None):
        raise ValueError(f'batch_reduction must be "mean", "sum" or None, got {batch_reduction!r}')
    if point_reduction not in ("mean", "sum", "max", None):
        raise ValueError(f'point_reduction must be "mean", "sum", "max" or None, got {point_reduction!r}')
    if point_reduction is None and batch_reduction is not None:
        raise ValueError(f"batch_reduction must be None if point_reduction is None, got {batch_reduction!r}")
    if norm not in (1, 2):
        raise ValueError(f"norm must be 1 or 2, got {norm!r}")
    if point_reduction == "max" and (x_normals is not None or y_normals is not None):
        raise ValueError('normals must be None if point_reduction is "max"')
    x, x_lengths, x_normals = _cloud("x", x, x_lengths, x_normals)
    y, y_lengths, y_normals = _cloud("y", y, y_lengths, y_normals)
    if x.shape[0] != y.shape[0] or x.shape[2] != y.shape[2]:
        raise ValueError(f"x (N, P1, D) and y (N, P2, D) do not fit each other: {tuple(x.shape)}, {tuple(y.shape)}")
    if weights is not None and (weights.shape[:1] != x.shape[:1] or not bool((weights >= 0).all())):
        raise ValueError(f"weights must be (N,) = ({len(x)},) and not negative, got {weights}")

    def way(a: Tensor, b: Tensor, of_a: Tensor, of_b: Tensor, normal_a: Any, normal_b: Any) -> list[Tensor | None]:
        if weights is not None and not bool(weights.any()):
            return [a.sum(dim=(1, 2)) * 0.0] * 2
        nearest_of_b = knn_points(a, b, of_a, of_b, norm=norm)
        values: list[Tensor | None] = [nearest_of_b.dists[..., 0], None]
        if normal_a is not None and normal_b is not None:
            cosine = cosine_similarity(normal_a, knn_gather(normal_b, nearest_of_b.idx, of_b)[:, :, 0], dim=2, eps=1e-6)
            values[1] = 1 - (cosine.abs() if abs_cosine else cosine)
        rank = torch.arange(a.shape[1], device=a.device)
        return [None if value is None else _points(value, rank < of_a[:, None], of_a) for value in values]

    def _points(value: Tensor, inside: Tensor, count: Tensor) -> Tensor:
        value = value.where(inside, 0.0)
        if weights is not None:
            value = value * weights.view(-1, 1)
        if point_reduction is None:
            return value
        if point_reduction == "max":
            return value.max(dim=1).values if value.shape[1] else value.sum(dim=1)
        return value.sum(dim=1) / (count.clamp_min(1) if point_reduction == "mean" else 1)

    forth = way(x, y, x_lengths, y_lengths, x_normals, y_normals)
    if single_directional:
        results: list[Any] = forth
    else:
        back = way(y, x, y_lengths, x_lengths, y_normals, x_normals)
        join: Any = {"max": torch.maximum, None: lambda a, b: (a, b)}.get(point_reduction, torch.add)
        results = [None if a is None else join(a, b) for a, b in zip(forth, back, strict=True)]
    if batch_reduction is not None:
        total = max(len(x), 1) if weights is None else weights.sum() if bool(weights.any()) else 1
        share = total if batch_reduction == "mean" else 1
        results = [None if value is None else value.sum() / share for value in results]
    return results[0], results[1]


def _cloud(name: str, points: Any, lengths: Any, normals: Any) -> tuple[Tensor, Tensor, Any]:
    if is_pointclouds(points):
        points, lengths, normals = points.points_padded(), points.num_points_per_cloud(), points.normals_padded()
    if not isinstance(points, Tensor) or points.dim() != 3:
        got = tuple(points.shape) if isinstance(points, Tensor) else type(points).__name__
        raise ValueError(f"{name} must be a tensor (N, P, D) or a Pointclouds, got {got}")
    if normals is not None and normals.shape[:2] != points.shape[:2]:
        raise ValueError(f"{name}_normals must be (N, P, D) for {tuple(points.shape)}, got {tuple(normals.shape)}")
    return points, lengths_of(points, lengths, f"{name}_lengths"), normals


class KNN(NamedTuple):
    """The result of a query: distances and indices (N, P1, K), and the points themselves (N, P1, K, D) or None."""

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
    ``version`` and ``return_sorted`` are ignored.

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
    exists = _rank(p1, of_1)[:, :, None] & (torch.arange(K, device=p1.device) < of_2[:, None])[:, None]
    return _result(p1, p2, idx, exists, distance, return_nn)


def knn_gather(x: Tensor, idx: Tensor, lengths: Tensor | None = None) -> Tensor:
    """``x[n, idx[n, l, k]]`` as (N, L, K, U) for x (N, M, U), and 0 where ``k >= lengths[n]``."""
    if len(x) != len(idx):
        raise ValueError(f"x and idx must have the same batch size, got {len(x)} and {len(idx)}")
    count = lengths_of(x, lengths, "lengths")
    exists = torch.arange(idx.shape[2], device=x.device) < count[:, None]
    return _taken(x, idx, exists[:, None].expand_as(idx))


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
    point 0. ``skip_points_outside_cube``, which only saves time, is ignored.
    """
    of_1, of_2 = _both(p1, p2, lengths1, lengths2)
    idx = torch.full((*p1.shape[:2], K), -1, dtype=torch.int64, device=p1.device)
    for n, (a, b) in enumerate(zip(of_1.tolist(), of_2.tolist(), strict=True)):
        idx[n, :a] = within(radius, K, p2[n : n + 1, :b], p1[n : n + 1, :a], fill=-1)[0]
    return _result(p1, p2, idx, idx >= 0, squared_distance, return_nn)


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
    exists = torch.arange(size, device=points.device) < torch.minimum(most, count)[:, None]
    idx = idx.where(exists, -1)
    return _taken(points, idx[:, None], exists[:, None])[:, 0], idx


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
    where no derivative exists, none flows. ``use_symeig_workaround`` is ignored.

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
    """Whether it is a ``Pointclouds``: it has the methods of one."""
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


def _result(p1: Tensor, p2: Tensor, idx: Tensor, exists: Tensor, distance: Any, return_nn: bool) -> KNN:
    if p2.shape[1] == 0:  # gather needs a point even for places that are masked
        p2 = torch.cat([p2, p2.new_zeros(len(p2), 1, p2.shape[2])], dim=1)
    points = gather(p2, idx.clamp_min(0))
    # Masked before the difference is taken: padding may hold anything, infinities too.
    inside = exists[..., None]
    dists = distance(p1[:, :, None].where(inside, 0.0), points.where(inside, 0.0))
    return KNN(dists, idx, points.where(inside, 0.0) if return_nn else None)


def _taken(x: Tensor, idx: Tensor, exists: Tensor) -> Tensor:
    return gather(x, idx.clamp_min(0)).where(exists[..., None], 0.0)


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
