"""Stand-in for ``pytorch3d.loss``: ``chamfer_distance`` as of pytorch3d 0.7.9, in any floating dtype."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from apml_plugin.standins.absent import absent, also

from .ops import is_pointclouds, knn_gather, knn_points, lengths_of


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
        weights: (N,) not negative; each sample's distances are multiplied by its own.
        point_reduction: "mean", "sum", "max" (the Hausdorff distance, the larger of both ways) or None.
        batch_reduction: "mean" (by the sum of the weights, where there are any), "sum" or None.

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
        found = knn_points(a, b, of_a, of_b, norm=norm)
        values: list[Tensor | None] = [found.dists[..., 0], None]
        if normal_a is not None and normal_b is not None:
            cosine = cosine_similarity(normal_a, knn_gather(normal_b, found.idx, of_b)[:, :, 0], dim=2, eps=1e-6)
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

    there = way(x, y, x_lengths, y_lengths, x_normals, y_normals)
    if single_directional:
        results: list[Any] = there
    else:
        back = way(y, x, y_lengths, x_lengths, y_normals, x_normals)
        join: Any = {"max": torch.maximum, None: lambda a, b: (a, b)}.get(point_reduction, torch.add)
        results = [None if a is None else join(a, b) for a, b in zip(there, back, strict=True)]
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


also(__name__, "chamfer")
__getattr__ = absent("pytorch3d.loss", "Install the real one: https://github.com/facebookresearch/pytorch3d")
