"""Features of points that no rotation or translation changes."""

from __future__ import annotations

import torch
from torch import Tensor

from apml_plugin.errors import LossValueError
from apml_plugin.models.layers import positive


def channels(neighbours: int) -> int:
    """How many features :func:`invariant_features` gives a point."""
    return 1 + 3 * neighbours


def invariant_features(points: Tensor, neighbours: int = 40) -> Tensor:
    """(B, N, 3) to (B, N, 1 + 3 * neighbours), for each point, with its nearest points in order of distance:

    its distance to the cloud's centroid; the distances to the neighbours; the angle at the point between each
    neighbour and the centroid; and each neighbour's smallest angle to another neighbour, seen from the point.

    Raises LossValueError where a cloud has no more points than ``neighbours``.
    """
    if points.dim() != 3 or points.shape[2] != 3 or points.shape[1] <= positive("neighbours", neighbours):
        raise LossValueError(
            f"points has shape {tuple(points.shape)}, expected (B, N, 3) with more than neighbours={neighbours} points"
        )
    batch = len(points)
    with torch.no_grad():
        near = torch.cdist(points, points).topk(neighbours + 1, largest=False).indices[..., 1:]
    rows = torch.arange(batch, device=points.device)[:, None, None]
    offsets = points[rows, near] - points[:, :, None]
    inwards = points.mean(1, keepdim=True) - points
    distances, directions = _polar(offsets)
    centre, towards = _polar(inwards)
    angles = _angle((directions * towards[:, :, None]).sum(-1))
    between = directions @ directions.mT
    own = torch.eye(neighbours, dtype=torch.bool, device=points.device)
    closest = _angle(between.masked_fill(own, -1.0).amax(-1))
    return torch.cat([centre[..., None], distances, angles, closest], dim=-1)


def _polar(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Lengths, and directions that are 0 where there is none."""
    square = vectors.square().sum(-1)
    length = torch.where(square > 0, square, 1.0).sqrt()
    return length * (square > 0), vectors / length[..., None]


def _angle(cosine: Tensor) -> Tensor:
    """Its gradient stays finite at 0 and 180 degrees."""
    return torch.acos(cosine.clamp(-1 + 1e-6, 1 - 1e-6))
