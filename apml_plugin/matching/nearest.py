"""The nearest neighbour of every point of a batch, in one direction or both."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from apml_plugin._torch_private import on_values
from apml_plugin.arguments import one_of
from apml_plugin.matching import extension, native
from apml_plugin.matching.dense import root
from apml_plugin.matching.inputs import Clouds, compute_dtype, wide
from apml_plugin.matching.search import nearest_index, squared_distance

DIRECTIONS = ("both", "pred_to_gt", "gt_to_pred")
"""``pred_to_gt``: each pred point and the gt point nearest to it; ``gt_to_pred``: each gt point and its pred point."""


class Way(NamedTuple):
    """For each point of one cloud, the nearest of the other. N queries, M points."""

    dist: Tensor
    """(B, N) squared distances, differentiable in both clouds; 0 outside the mask."""
    idx: Tensor
    """(B, N) int64, index of that point; -1 outside the mask (padding, or an empty cloud)."""
    mask: Tensor | None
    """(B, N) bool, the queries that count; None where all do."""
    points: int
    """M, padding included."""
    others: Tensor
    """(B,) number of points without padding, in the dtype of ``dist``."""

    @property
    def queries(self) -> Tensor:
        """(B,) number of queries that count, in the dtype of ``dist``."""
        if self.mask is None:
            return self.dist.new_full((self.dist.shape[0],), self.dist.shape[1])
        return self.mask.sum(dim=1).to(self.dist.dtype)

    def distance(self) -> Tensor:
        """(B, N) Euclidean distances; the derivative at 0 is 0."""
        return root(self.dist)

    def sharing(self) -> Tensor:
        """(B, N): the number of queries, itself included, that share the nearest point of each query. No gradient."""
        if self.points == 0:
            return torch.ones_like(self.dist)
        index = self.idx.clamp_min(0)
        ones = torch.ones_like(self.dist) if self.mask is None else self.mask.to(self.dist.dtype)
        hits = ones.new_zeros(ones.shape[0], self.points).scatter_add_(1, index, ones.detach())
        return hits.gather(1, index)

    def sum(self, values: Tensor) -> Tensor:
        """(B,) sums of (B, N) values over the queries that count."""
        return (values if self.mask is None else values.where(self.mask, 0.0)).sum(dim=1)

    def mean(self, values: Tensor) -> Tensor:
        """(B,) means of (B, N) values over the queries that count; 0 where none does."""
        return self.sum(values) / self.queries.clamp_min(1)


class Nearest(NamedTuple):
    """Both ways between pred (x) and gt (y)."""

    xy: Way
    yx: Way

    @property
    def dist_xy(self) -> Tensor:
        """(B, N) squared distance of each pred point to its nearest gt point."""
        return self.xy.dist

    @property
    def idx_xy(self) -> Tensor:
        """(B, N) that gt point."""
        return self.xy.idx

    @property
    def dist_yx(self) -> Tensor:
        """(B, M) squared distance of each gt point to its nearest pred point."""
        return self.yx.dist

    @property
    def idx_yx(self) -> Tensor:
        """(B, M) that pred point."""
        return self.yx.idx


def both_ways(clouds: Clouds) -> Nearest:
    """Both ways between checked clouds, distances in their dtype, float32 at least; O(N + M) memory."""
    dtype = compute_dtype(clouds.pred, clouds.gt)
    sides = ways(clouds, "both")
    return Nearest(*(way._replace(dist=way.dist.to(dtype), others=way.others.to(dtype)) for way in sides))


def ways(clouds: Clouds, direction: str) -> list[Way]:
    """The ways of a direction: two for ``both``, pred to gt first, else one. Distances in float64 (but on MPS)."""
    one_of("direction", direction, DIRECTIONS)
    dtype = compute_dtype(clouds.pred, clouds.gt)
    x, x_mask = _without_padding(clouds.pred.to(dtype), clouds.pred_lengths)
    y, y_mask = _without_padding(clouds.gt.to(dtype), clouds.gt_lengths)
    results = []
    with torch.autocast(x.device.type, enabled=False):
        if direction != "gt_to_pred":
            results.append(_way(x, y, x_mask, y_mask, clouds.pred_lengths, clouds.gt_lengths))
        if direction != "pred_to_gt":
            results.append(_way(y, x, y_mask, x_mask, clouds.gt_lengths, clouds.pred_lengths))
    return results


def _without_padding(cloud: Tensor, lengths: list[int] | None) -> tuple[Tensor, Tensor | None]:
    """The cloud with 0 in its padding, which may hold NaN, and the mask (B, N) of the other points."""
    if lengths is None:
        return cloud, None
    mask = torch.arange(cloud.shape[1], device=cloud.device) < torch.tensor(lengths, device=cloud.device)[:, None]
    return cloud.where(mask[..., None], 0.0), mask


def _way(
    x: Tensor,
    y: Tensor,
    x_mask: Tensor | None,
    y_mask: Tensor | None,
    x_lengths: list[int] | None,
    y_lengths: list[int] | None,
) -> Way:
    batch, n, m = x.shape[0], x.shape[1], y.shape[1]
    others = wide(x).new_full((batch,), m) if y_mask is None else y_mask.sum(dim=1).to(wide(x).dtype)
    if n == 0 or m == 0:  # 0, and part of the graph
        dist = wide(x[..., :0]).sum(dim=-1) + wide(y[:, :0]).sum(dim=(1, 2))[:, None]
        mask = None if n == 0 else torch.zeros(batch, n, dtype=torch.bool, device=x.device)
        return Way(dist, torch.full((batch, n), -1, device=x.device), mask, m, others)
    idx = on_values(lambda x, y: _search(x, y, x_lengths, y_lengths), x, y)
    mask = x_mask
    if y_lengths is not None and 0 in y_lengths:
        filled = (others > 0)[:, None].expand(batch, n)
        mask = filled if mask is None else mask & filled
    nearest = y.gather(1, idx.clamp_min(0)[..., None].expand(-1, -1, y.shape[2]))
    dist = squared_distance(wide(x), wide(nearest))
    return Way(dist if mask is None else dist.where(mask, 0.0), idx, mask, m, others)


def _search(x: Tensor, y: Tensor, x_lengths: list[int] | None, y_lengths: list[int] | None) -> Tensor:
    if extension.problem(x.device.type, x.shape[2]) is None:
        return native.nearest_of_batch(x, y, x_lengths, y_lengths)
    idx = torch.full(x.shape[:2], -1, device=x.device)
    for b in range(x.shape[0]):
        n = x.shape[1] if x_lengths is None else x_lengths[b]
        m = y.shape[1] if y_lengths is None else y_lengths[b]
        if n and m:
            idx[b, :n] = nearest_index(x[b, :n], y[b, :m])
    return idx
