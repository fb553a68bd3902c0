"""Nearest neighbours as the compiled Chamfer modules find them: smallest distance, then lowest index.

Distances are sums of squared differences in the clouds' own dtype (exact 0 for coinciding points, which the
matrix-product form of ``cdist`` does not give). On the CPU a k-d tree proposes and that arithmetic decides.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from apml_plugin.matching.search import squared_distance

BLOCK_ENTRIES = 1 << 22
"""Distances held at once where all pairs are computed."""

CANDIDATES = 4
"""Points the tree proposes per query. Rows whose last proposal still ties are searched in full."""

SMALL = 64 * 64
"""Up to so many pairs, computing all of them is cheaper than a tree."""


def nearest(queries: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distance (n,) and index int64 (n,) of the nearest of ``points`` (m, 3) per query (n, 3).

    Ties go to the lowest index. No gradients. Memory O(n + m). A NaN coordinate gives a NaN distance.

    Raises:
        ValueError: ``points`` is empty.
    """
    if len(points) == 0:
        raise ValueError("nearest: the cloud to search has no points")
    with torch.no_grad():
        on_cpu = queries.device.type == "cpu"
        if not on_cpu or len(queries) * len(points) <= SMALL or not _finite(queries, points):
            index = _all_pairs(queries, points)
        else:
            index = _by_tree(queries, points)
        return squared_distance(queries, points[index]), index


def _finite(*clouds: Tensor) -> bool:
    return all(bool(torch.isfinite(cloud).all()) for cloud in clouds)


def _all_pairs(queries: Tensor, points: Tensor) -> Tensor:
    found = [queries.new_empty(0, dtype=torch.int64)]
    for block in queries.split(max(1, BLOCK_ENTRIES // len(points))):
        # argmin gives the first of equal minima (documented); a NaN counts as the minimum and stays visible.
        found.append(squared_distance(block[:, None], points).argmin(dim=-1))
    return torch.cat(found)


def _by_tree(queries: Tensor, points: Tensor) -> Tensor:
    # Without exact duplicates (zero padding, resampling) ties are few, and each keeps its first index.
    unique, first = _without_duplicates(points)
    k = min(CANDIDATES, len(unique))
    tree = cKDTree(unique.double().numpy(), balanced_tree=False)
    far, proposed = tree.query(queries.double().numpy(), k=k, workers=-1)
    far, proposed = np.reshape(far, (-1, k)), np.reshape(proposed, (-1, k))
    candidates = first[torch.from_numpy(proposed.astype(np.int64))].sort(dim=-1).values
    distance = squared_distance(queries[:, None], points[candidates])
    best, column = distance.min(dim=-1).values, distance.argmin(dim=-1)
    index = candidates.gather(1, column[:, None])[:, 0]
    if k == len(unique):
        return index
    # A point that the tree left out is at least as far as its last proposal. Where rounding in the clouds' own
    # dtype could still bring such a point level with the best one, look at every point.
    info = torch.finfo(queries.dtype)
    safe = torch.from_numpy(far[:, -1]).square() * (1 - 16 * info.eps) > best.double() + 16 * info.tiny
    rows = (~safe).nonzero()[:, 0]
    if len(rows):
        index[rows] = first[_all_pairs(queries[rows], unique)]
    return index


def _without_duplicates(points: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct points in order of first appearance, and where each first appears."""
    # -0.0 and 0.0 are one place: adding 0.0 makes their bytes equal.
    rows = np.ascontiguousarray((points + 0.0).numpy())
    keys = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    first = torch.from_numpy(np.sort(np.unique(keys, return_index=True)[1]).astype(np.int64))
    return points[first], first
