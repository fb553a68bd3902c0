"""Stand-in for ``pointnet2_ops.pointnet2_utils``: sampling, gathering and grouping of points.

Shapes and names are the compiled package's. What it marks as not differentiable has no gradient here either.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from apml_plugin.errors import LossValueError
from apml_plugin.standins.absent import absent
from apml_plugin.standins.nearest import BLOCK_ENTRIES, squared_distance

ORIGIN = 1e-3
"""Points with x^2 + y^2 + z^2 at or below this are never sampled: the compiled code takes them for padding."""


def furthest_point_sample(xyz: Tensor, npoint: int) -> Tensor:
    """Indices int32 (B, npoint) of points of (B, N, 3), each the furthest from those before it.

    Starts at index 0. Points within sqrt(1e-3) of the origin are skipped, except index 0; where nothing else is
    left, index 0 repeats. Ties go to the lowest index. ``npoint`` may be a 0-dim tensor. No gradient.

    Raises:
        ValueError: the clouds are empty.
    """
    with torch.no_grad():
        batch, n, _ = xyz.shape
        count = int(npoint)
        if n == 0:
            raise ValueError(f"furthest_point_sample: xyz has no points, shape {tuple(xyz.shape)}")
        columns = xyz.detach().transpose(1, 2).contiguous()
        x, y, z = columns.unbind(1)
        padding = (x * x + y * y + z * z).double() <= ORIGIN
        # Distance to the nearest chosen point so far; -1 keeps padding behind every real point.
        gap = torch.full_like(x, 1e10).masked_fill_(padding, -1.0)
        chosen = torch.zeros(batch, count, dtype=torch.int64, device=xyz.device)
        last = torch.zeros(batch, 1, dtype=torch.int64, device=xyz.device)
        for i in range(1, count):
            at = columns.gather(2, last[:, None].expand(-1, 3, -1))
            step = (columns - at).square_()
            gap = torch.minimum(gap, step[:, 0].add_(step[:, 1]).add_(step[:, 2]))
            last = gap.argmax(dim=1, keepdim=True)
            chosen[:, i] = last[:, 0]
        return chosen.int()


def gather_operation(features: Tensor, idx: Tensor) -> Tensor:
    """Columns ``idx`` (B, m) of ``features`` (B, C, N) as (B, C, m); gradients go to ``features``."""
    return features.gather(2, idx.long()[:, None].expand(-1, features.shape[1], -1))


def grouping_operation(features: Tensor, idx: Tensor) -> Tensor:
    """Columns ``idx`` (B, p, s) of ``features`` (B, C, N) as (B, C, p, s); gradients go to ``features``."""
    batch, groups, size = idx.shape
    return gather_operation(features, idx.reshape(batch, groups * size)).view(batch, -1, groups, size)


def three_nn(unknown: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """The three nearest of ``known`` (B, m, 3) for each of ``unknown`` (B, n, 3).

    Returns Euclidean distances (B, n, 3), nearest first, and int32 indices (B, n, 3). With fewer than three
    known points the rest have distance inf and index 0. No gradient.
    """
    with torch.no_grad():
        distances, indices = [], []
        k = min(3, known.shape[1])
        for queries, points in zip(unknown, known, strict=True):
            for block in queries.split(max(1, BLOCK_ENTRIES // max(1, len(points)))):
                # A stable sort keeps the lowest index first among equal distances; topk would not promise it.
                near, index = squared_distance(block[:, None], points).sort(dim=-1, stable=True)
                distances.append(near[:, :k])
                indices.append(index[:, :k])
        shape = (*unknown.shape[:2], 3)
        dist = unknown.new_full(shape, float("inf"))
        idx = torch.zeros(shape, dtype=torch.int32, device=unknown.device)
        if distances:
            dist[..., :k] = torch.cat(distances).view(*shape[:2], k).sqrt()
            idx[..., :k] = torch.cat(indices).view(*shape[:2], k).int()
        return dist, idx


def three_interpolate(features: Tensor, idx: Tensor, weight: Tensor) -> Tensor:
    """Weighted sum of three columns of ``features`` (B, C, m) per point: ``idx``, ``weight`` (B, n, 3) -> (B, C, n).

    Gradients go to ``features`` only, as in the compiled package.
    """
    return (grouping_operation(features, idx) * weight.detach()[:, None]).sum(dim=-1)


def ball_query(radius: float, nsample: int, xyz: Tensor, new_xyz: Tensor) -> Tensor:
    """The first ``nsample`` indices of ``xyz`` (B, N, 3) closer than ``radius`` to each of ``new_xyz`` (B, p, 3).

    Returns int32 (B, p, nsample) in ascending order; free places repeat the first hit, 0 without any. No gradient.
    """
    with torch.no_grad():
        limit = torch.tensor(float(radius), dtype=xyz.dtype, device=xyz.device).square()
        n = xyz.shape[1]
        found = [torch.empty(0, nsample, dtype=torch.int32, device=xyz.device)]
        for centres, points in zip(new_xyz, xyz, strict=True):
            order = torch.arange(n, device=xyz.device)
            for block in centres.split(max(1, BLOCK_ENTRIES // max(1, n))):
                inside = squared_distance(block[:, None], points) < limit
                hits = torch.where(inside, order, n).sort(dim=-1).values[:, :nsample]
                if hits.shape[1] < nsample:
                    hits = torch.cat([hits, hits.new_full((len(hits), nsample - hits.shape[1]), n)], dim=1)
                first = torch.where(hits[:, :1] < n, hits[:, :1], 0)
                found.append(torch.where(hits < n, hits, first).int())
        return torch.cat(found).view(*new_xyz.shape[:2], nsample)


class QueryAndGroup(nn.Module):
    """The points within ``radius`` of each centre, seen from there, beside their features.

    ``use_xyz=False`` leaves the coordinates out, which then needs features.
    """

    def __init__(self, radius: float, nsample: int, use_xyz: bool = True) -> None:
        super().__init__()
        self.radius, self.nsample, self.use_xyz = radius, nsample, use_xyz

    def forward(self, xyz: Tensor, new_xyz: Tensor, features: Tensor | None = None) -> Tensor:
        """(B, N, 3), centres (B, p, 3) and features (B, C, N) give (B, 3 + C, p, nsample).

        Raises:
            LossValueError: neither coordinates nor features are wanted.
        """
        idx = ball_query(self.radius, self.nsample, xyz, new_xyz)
        local = grouping_operation(xyz.transpose(1, 2).contiguous(), idx) - new_xyz.transpose(1, 2)[..., None]
        return _beside(local, None if features is None else grouping_operation(features, idx), self.use_xyz)


class GroupAll(nn.Module):
    """All points as one group, beside their features."""

    def __init__(self, use_xyz: bool = True) -> None:
        super().__init__()
        self.use_xyz = use_xyz

    def forward(self, xyz: Tensor, new_xyz: Tensor | None, features: Tensor | None = None) -> Tensor:
        """(B, N, 3) and features (B, C, N) give (B, 3 + C, 1, N); ``new_xyz`` is not looked at.

        Raises:
            LossValueError: neither coordinates nor features are wanted.
        """
        return _beside(
            xyz.transpose(1, 2)[:, :, None], None if features is None else features[:, :, None], self.use_xyz
        )


def _beside(xyz: Tensor, features: Tensor | None, use_xyz: bool) -> Tensor:
    if features is None:
        if not use_xyz:
            raise LossValueError("grouping without features needs use_xyz=True")
        return xyz
    return torch.cat([xyz, features], dim=1) if use_xyz else features


__getattr__ = absent(
    "pointnet2_ops.pointnet2_utils",
    "It has furthest_point_sample, gather_operation, grouping_operation, three_nn, three_interpolate, ball_query, "
    "QueryAndGroup and GroupAll. Install the real package: https://github.com/erikwijmans/Pointnet2_PyTorch "
    "(needs a CUDA compiler)",
)
