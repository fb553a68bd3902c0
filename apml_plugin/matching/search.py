"""Neighbour search without a compiler and without an N x M tensor.

``neighbours_of(points)`` gives an object with two methods: the k nearest points, and all points within a
radius given for each query. On the CPU a k-d tree (SciPy) finds them, on a GPU all distances, block by block.
"""

from __future__ import annotations

import itertools
from typing import Protocol

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from apml_plugin.errors import LossValueError
from apml_plugin.matching import extension, native

TREE_ENTRIES = 2_000_000
"""Neighbours gathered per call of the tree: it returns Python lists, about 40 bytes an entry."""

BLOCK_ENTRIES = 1 << 24
"""Distances held at once by the blockwise search."""

SPARE_CANDIDATES = 4
"""Candidates beyond those asked for: chosen in float32, and then compared in float64."""


class Neighbours(Protocol):
    """A search among points. ``queries`` is (n, D); indices are int64."""

    def nearest(self, queries: Tensor, k: int) -> Tensor:
        """Indices (n, k) of the k nearest points (k <= number of points), nearest first."""

    def within(self, queries: Tensor, radii: Tensor) -> tuple[Tensor, Tensor]:
        """Counts (n,) and flat indices (sum of counts,) of the points within each query's radius."""


def neighbours_of(points: Tensor) -> Neighbours:
    """The search that suits the device of ``points`` (m, D), m >= 1."""
    return BlockNeighbours(points) if points.device.type == "cuda" else TreeNeighbours(points)


class TreeNeighbours:
    """SciPy's k-d tree, on as many threads as PyTorch uses."""

    def __init__(self, points: Tensor) -> None:
        # Sliding-midpoint splits: half the building time of a balanced tree, and the queries are no slower.
        self._tree = cKDTree(points.double().numpy(), balanced_tree=False)

    def nearest(self, queries: Tensor, k: int) -> Tensor:
        _, index = self._tree.query(queries.double().numpy(), k=k, workers=torch.get_num_threads())
        index = np.asarray(index, dtype=np.int64).reshape(len(queries), k)
        if (index == self._tree.n).any():  # SciPy's mark for no point at a finite distance
            raise LossValueError("squared distances between the clouds exceed what float64 can hold: scale them down")
        return torch.from_numpy(index)

    def within(self, queries: Tensor, radii: Tensor) -> tuple[Tensor, Tensor]:
        x, r = queries.double().numpy(), radii.double().numpy()
        if len(x) == 0:
            return torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
        counts = np.asarray(
            self._tree.query_ball_point(x, r, workers=torch.get_num_threads(), return_length=True), dtype=np.int64
        )
        blocks = []
        for start, stop in _blocks(counts, TREE_ENTRIES):
            lists = self._tree.query_ball_point(
                x[start:stop], r[start:stop], workers=torch.get_num_threads(), return_sorted=False
            )
            flat = itertools.chain.from_iterable(lists)
            blocks.append(np.fromiter(flat, dtype=np.int64, count=int(counts[start:stop].sum())))
        return torch.from_numpy(counts), torch.from_numpy(np.concatenate(blocks))


class BlockNeighbours:
    """Blocks of rows against all points, on any device. Candidates are chosen in the points' dtype."""

    def __init__(self, points: Tensor) -> None:
        self._points = points

    def nearest(self, queries: Tensor, k: int) -> Tensor:
        m = len(self._points)
        candidates = min(m, k + SPARE_CANDIDATES)
        chosen = []
        for block in queries.split(max(1, BLOCK_ENTRIES // m)):
            index = self._squared(block).topk(candidates, dim=-1, largest=False).indices
            exact = squared_distance(block.double()[:, None], self._points.double()[index])
            order = exact.argsort(dim=-1, stable=True)[:, :k]
            chosen.append(index.gather(1, order))
        return torch.cat(chosen)

    def within(self, queries: Tensor, radii: Tensor) -> tuple[Tensor, Tensor]:
        m = len(self._points)
        # A little wider, for the rounding of the candidates' dtype: a few more entries do no harm.
        limit = (radii * (1 + 8 * torch.finfo(self._points.dtype).eps)).square()
        size = max(1, BLOCK_ENTRIES // m)
        none = torch.empty(0, dtype=torch.int64, device=queries.device)
        counts, indices = [none], [none]
        for block, most in zip(queries.split(size), limit.split(size), strict=True):
            inside = self._squared(block) <= most[:, None]
            counts.append(inside.sum(dim=-1))
            indices.append(inside.nonzero()[:, 1])
        return torch.cat(counts), torch.cat(indices)

    def _squared(self, block: Tensor) -> Tensor:
        return squared_distance(block[:, None].to(self._points.dtype), self._points)


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """Sum over the last axis of the squared differences of broadcastable (..., D), coordinates in order.

    In order and without a fused reduction, so that equal distances come out equal on every backend.
    """
    total = (a[..., 0] - b[..., 0]).square()
    for k in range(1, a.shape[-1]):
        total = total + (a[..., k] - b[..., k]).square()
    return total


def nearest_index(queries: Tensor, points: Tensor) -> Tensor:
    """Index (n,) of the nearest of ``points`` (m, D), m >= 1, for each of ``queries`` (n, D)."""
    if len(queries) == 0:
        return torch.empty(0, dtype=torch.int64, device=queries.device)
    if extension.problem(queries.device.type, queries.shape[1]) is None:
        return native.nearest(queries, points)[1]
    if queries.device.type in ("cpu", "cuda"):
        return neighbours_of(points).nearest(queries, 1)[:, 0]
    return neighbours_of(points.cpu()).nearest(queries.cpu(), 1)[:, 0].to(queries.device)


def _blocks(counts: np.ndarray, most: int) -> list[tuple[int, int]]:
    """Consecutive row ranges whose counts sum to about ``most``, one row at least."""
    edges = [0]
    ends = np.cumsum(counts)
    while edges[-1] < len(counts):
        start = edges[-1]
        before = int(ends[start - 1]) if start else 0
        edges.append(max(start + 1, int(np.searchsorted(ends, before + most, side="right"))))
    return list(itertools.pairwise(edges))
