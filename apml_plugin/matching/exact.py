"""Nearest, furthest and near points, bit-identical to compiled modules: by distance, then lowest index.

Distances are sums of squared differences in the dtype of the clouds (exactly 0 for coinciding points, unlike the
matrix-product form of ``cdist``). On the CPU a k-d tree proposes candidates, which are then compared in that way.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from apml_plugin.matching.search import squared_distance

BLOCK_ENTRIES = 1 << 22
"""Distances held at once where all pairs are computed."""

SPARE = 3
"""Points the tree proposes beyond k. Rows whose last proposal may still be tied are searched in full."""

SMALL = 64 * 64
"""Up to so many pairs, computing all of them is cheaper than a tree."""

DIMENSIONS = 8
"""Beyond so many coordinates a tree is no quicker than all pairs."""

FAR = 1e10
"""The distance to an empty set in compiled modules."""


def nearest(
    queries: Tensor, points: Tensor, k: int = 1, distance: Callable[[Tensor, Tensor], Tensor] = squared_distance
) -> tuple[Tensor, Tensor]:
    """Distances (B, n, k) and indices int64 (B, n, k) of the k nearest of ``points`` (B, m, D) per query (B, n, D).

    Nearest first; of equal distances the lowest index first. Squared Euclidean distances, or those of another
    ``distance``. No gradients. Memory O(n k + m). A NaN coordinate gives a NaN distance.

    Raises:
        ValueError: shapes other than above, or fewer than k points to search.
    """
    if queries.dim() != 3 or points.dim() != 3 or queries.shape[::2] != points.shape[::2]:
        raise ValueError(
            f"nearest: expected clouds (B, n, D) and (B, m, D), got {tuple(queries.shape)} and {tuple(points.shape)}"
        )
    if not 0 < k <= points.shape[1]:
        raise ValueError(f"nearest: the cloud to search has no points for k = {k}: it has {points.shape[1]}")
    with torch.no_grad():
        index = torch.empty((*queries.shape[:2], k), dtype=torch.int64, device=queries.device)
        for b in range(len(queries)):
            index[b] = _indices(queries[b], points[b], k, distance)
        return distance(queries[:, :, None], gather(points, index)), index


def gather(points: Tensor, index: Tensor) -> Tensor:
    """Rows ``index`` (B, n, k) of ``points`` (B, m, D) as (B, n, k, D); gradients go to ``points``."""
    flat = index.long().flatten(1)[..., None].expand(-1, -1, points.shape[2])
    return points.gather(1, flat).view(*index.shape, points.shape[2])


def furthest(xyz: Tensor, count: int, gap: Tensor, start: Tensor | int = 0) -> Tensor:
    """Indices int64 (B, count) of points of (B, N, D), each the furthest from those before it, the lowest on ties.

    ``gap`` (B, N) is each point's squared distance to the set so far, at first FAR, or -1 for what is no point; it
    is updated. ``start`` is the first index, one for all or one per sample (B,). No gradient.

    Raises:
        ValueError: there are no points to choose from.
    """
    with torch.no_grad():
        if xyz.shape[1] == 0 and count:
            raise ValueError(f"furthest_point_sample: xyz has no points, shape {tuple(xyz.shape)}")
        columns = xyz.detach().transpose(1, 2).contiguous()
        chosen = torch.zeros(len(xyz), count, dtype=torch.int64, device=xyz.device)
        chosen[:, :1] = torch.as_tensor(start, device=xyz.device).reshape(-1, 1)
        for i in range(1, count):
            at = columns.gather(2, chosen[:, None, i - 1 : i].expand(-1, columns.shape[1], -1))
            step = (columns - at).square_().unbind(1)
            torch.minimum(gap, sum(step[1:], step[0]), out=gap)
            chosen[:, i] = gap.argmax(dim=1)
        return chosen


def within(
    radius: float, most: int, points: Tensor, queries: Tensor, least: float = 0.0, fill: int | None = None
) -> Tensor:
    """The first ``most`` indices int64 (B, n, most) of ``points`` (B, m, D) closer than ``radius`` to each query.

    Ascending; free places hold ``fill``, by default the first hit, 0 without any. What is nearer to its query of
    (B, n, D) than ``least``, but not at the very place, does not count. No gradient.
    """
    with torch.no_grad():
        low, limit = torch.tensor([least, radius], dtype=points.dtype, device=points.device).square()
        m = points.shape[1]
        order = torch.arange(m, device=points.device)
        blocks = [torch.empty(0, most, dtype=torch.int64, device=points.device)]
        for centres, cloud in zip(queries, points, strict=True):
            for block in centres.split(max(1, BLOCK_ENTRIES // max(1, m))):
                far = squared_distance(block[:, None], cloud)
                inside = (far < limit) & ((far >= low) | (far == 0))
                hits = torch.where(inside, order, m).sort(dim=-1).values[:, :most]
                hits = torch.cat([hits, hits.new_full((len(hits), most - hits.shape[1]), m)], dim=1)
                free = hits[:, :1].where(hits[:, :1] < m, 0) if fill is None else fill
                blocks.append(torch.where(hits < m, hits, free))
        return torch.cat(blocks).view(*queries.shape[:2], most)


def _indices(queries: Tensor, points: Tensor, k: int, distance: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    small = len(queries) * len(points) <= SMALL or queries.shape[1] > DIMENSIONS
    if queries.device.type != "cpu" or small or distance is not squared_distance or not _finite(queries, points):
        return _all_pairs(queries, points, k, distance)
    return _by_tree(queries, points, k)


def _finite(*clouds: Tensor) -> bool:
    """Whether every squared distance is finite in float64, in which the tree computes."""
    return all(bool(torch.isfinite((2 * cloud.double()).square().sum(dim=-1)).all()) for cloud in clouds)


def _all_pairs(
    queries: Tensor, points: Tensor, k: int, distance: Callable[[Tensor, Tensor], Tensor] = squared_distance
) -> Tensor:
    blocks = [queries.new_empty((0, k), dtype=torch.int64)]
    for block in queries.split(max(1, BLOCK_ENTRIES // len(points))):
        pairs = distance(block[:, None], points)
        if k == 1:
            # argmin gives the first of equal minima (documented) and takes NaN as the minimum.
            blocks.append(pairs.argmin(dim=-1, keepdim=True))
            continue
        # topk does not define the order of equal values, so rows with equal values are sorted.
        near, at = pairs.topk(k, dim=1, largest=False)
        tied = (pairs <= near[:, -1:]).sum(dim=1) > k
        rows = (tied | (near[:, 1:] == near[:, :-1]).any(dim=1)).nonzero()[:, 0]
        if len(rows):
            at[rows] = pairs[rows].argsort(dim=1, stable=True)[:, :k]
        blocks.append(at)
    return torch.cat(blocks)


def _by_tree(queries: Tensor, points: Tensor, k: int) -> Tensor:
    # Duplicates (zero padding, resampling) would tie. Each place keeps its first index.
    unique, first = _without_duplicates(points) if k == 1 else (points, torch.arange(len(points)))
    proposals = min(k + SPARE, len(unique))
    tree = cKDTree(unique.double().numpy(), balanced_tree=False)
    far, proposed = tree.query(queries.double().numpy(), k=proposals, workers=-1)
    far, proposed = np.reshape(far, (-1, proposals)), np.reshape(proposed, (-1, proposals))
    candidates = first[torch.from_numpy(proposed.astype(np.int64))].sort(dim=-1).values
    best, order = squared_distance(queries[:, None], points[candidates]).sort(dim=-1, stable=True)
    index = candidates.gather(1, order[:, :k])
    if proposals == len(unique):
        return index
    # A point that the tree left out is at least as far as its last proposal. Where rounding could make such a point
    # equal to the last one kept, all points are compared.
    info = torch.finfo(queries.dtype)
    safe = torch.from_numpy(far[:, -1]).square() * (1 - 16 * info.eps) > best[:, k - 1].double() + 16 * info.tiny
    rows = (~safe).nonzero()[:, 0]
    if len(rows):
        index[rows] = first[_all_pairs(queries[rows], unique, k)]
    return index


def _without_duplicates(points: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct points in order of first appearance, and where each first appears."""
    # Adding 0.0 gives -0.0 and 0.0 the same bytes.
    rows = np.ascontiguousarray((points + 0.0).numpy())
    keys = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    first = torch.from_numpy(np.sort(np.unique(keys, return_index=True)[1]).astype(np.int64))
    return points[first], first
