"""APML from its sparse support: the values of the dense backend without an N x M tensor.

Only entries whose one-sided similarity exceeds ``threshold`` are kept: those within a radius of each point, found by a
neighbour search in both directions. Computed in float64 throughout, because the scalings of an untrained network's
prediction span 1e-23 to 1e+23.

With ``ties="uniform"`` a tied row or column spreads over every point of the other cloud. These rows and columns are
kept as two vectors; Sinkhorn needs only sums over them, and everything else visits their pairs in blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from apml_plugin.errors import BackendError
from apml_plugin.matching.dense import inverse_temperature, pairwise_cost, pull, support_radius
from apml_plugin.matching.search import Neighbours, neighbours_of, squared_distance
from apml_plugin.matching.settings import Settings, resolve_threshold
from apml_plugin.matching.sparse_matrix import Kernel, SparseMatrix, ends_of, segment_sums, sinkhorn

BLOCK_ENTRIES = 1 << 22
"""Pairs of tied rows and columns visited at once."""


@dataclass
class PairPlan:
    """The plan of one pair, x = pred (N, D) and y = gt (M, D) in float64, N, M >= 1.

    Attributes:
        entries: the kept entries of the plan; ``entries.values`` are the P_ij.
        r, c: the whole Sinkhorn scaling, (N,) and (M,).
        u, v: uniform shares of tied rows and columns before scaling (``ties="uniform"`` only).
        threshold: the one that was used.
        dropped: under the same scaling the dropped entries carry at most this much of the mass M.
    """

    x: Tensor
    y: Tensor
    entries: SparseMatrix
    r: Tensor
    c: Tensor
    u: Tensor
    v: Tensor
    threshold: float
    dropped: float


def pair_plan(pred: Tensor, gt: Tensor, settings: Settings) -> PairPlan:
    """The plan of (N, D) and (M, D), N, M >= 1; ``threshold="auto"`` is resolved here."""
    near_pred, near_gt = neighbours_of(pred), neighbours_of(gt)

    def run(threshold: float) -> PairPlan:
        return _plan_at(pred, gt, near_pred, near_gt, settings, threshold)

    return resolve_threshold(settings, run, lambda plan: [plan.dropped], [len(gt)])


def solve(
    pred: Tensor, gt: Tensor, settings: Settings, gradients: bool = True
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Loss (0-dim, float64) of one pair (N, D), (M, D) and its two gradients, from one pass over the entries."""
    plan = pair_plan(pred, gt, settings)
    rows, columns, p = plan.entries.rows, plan.entries.columns, plan.entries.values
    x, y = plan.x, plan.y
    cost = squared_distance(x[rows], y[columns]).sqrt()
    loss = (p * cost).sum()
    pred_grad = gt_grad = None
    if gradients:
        weight = pull(p, cost)
        pred_grad, gt_grad = torch.empty_like(x), torch.empty_like(y)
        for k in range(x.shape[1]):
            force = weight * (x[rows, k] - y[columns, k])
            pred_grad[:, k] = plan.entries.row_sums_of(force)
            gt_grad[:, k] = -plan.entries.column_sums_of(force)
    if settings.ties == "uniform":
        loss = loss + _add_uniform(plan, pred_grad, gt_grad)
    if not bool(torch.isfinite(loss)):
        raise BackendError(
            f"the sparse backend left the range of float64 after iterations={settings.iterations} with "
            f"eps={settings.eps:g}: use fewer iterations, a smaller threshold or backend='dense'"
        )
    return loss, pred_grad, gt_grad


def plan_entries(pred: Tensor, gt: Tensor, settings: Settings) -> tuple[Tensor, Tensor, Tensor, PairPlan]:
    """Rows, columns and values of the plan, tied rows and columns written out, and the plan itself."""
    plan = pair_plan(pred, gt, settings)
    entries = plan.entries
    if settings.ties == "uniform":
        entries = _with_uniform_entries(plan)
    return entries.rows, entries.columns, entries.values, plan


def _plan_at(
    pred: Tensor, gt: Tensor, near_pred: Neighbours, near_gt: Neighbours, settings: Settings, threshold: float
) -> PairPlan:
    at = replace(settings, threshold=threshold)
    x, y = pred.double(), gt.double()
    by_row = _softmin(x, y, pred, near_gt, at)
    by_column = _softmin(y, x, gt, near_pred, at)
    entries = SparseMatrix(
        torch.cat((by_row.queries, by_column.points)),
        torch.cat((by_row.points, by_column.queries)),
        torch.cat((by_row.values, by_column.values)),
        (len(x), len(y)),
    )
    kernel = Kernel(entries, by_row.uniform, by_column.uniform)
    r, c = sinkhorn(kernel, settings.iterations, settings.eps)
    dropped = 0.5 * threshold * ((r * by_row.scale).sum() * c.sum() + r.sum() * (c * by_column.scale).sum())
    bound = float(torch.nan_to_num(dropped, nan=float("inf"), posinf=float("inf")))
    return PairPlan(x, y, entries, r, c, kernel.u, kernel.v, threshold, bound)


@dataclass
class _Softmin:
    """Half of the kept one-sided softmin of every query over the points, as entries."""

    queries: Tensor  # (nnz,)
    points: Tensor  # (nnz,)
    values: Tensor  # (nnz,) half the softmin
    scale: Tensor  # (n,) 1 / denominator: a dropped entry is below threshold times this; 0 where none is dropped
    uniform: Tensor  # (n,) half the uniform share of tied queries under ties="uniform", else 0


def _softmin(x: Tensor, y: Tensor, queries: Tensor, near: Neighbours, settings: Settings) -> _Softmin:
    """x (n, D) against y (m, D) in float64; ``queries`` are x in their original dtype, which the search takes."""
    n, m = len(x), len(y)
    pair = near.nearest(queries, min(2, m))
    two = squared_distance(x[:, None], y[pair]).sqrt().sort(dim=-1).values
    nearest, gap = two[:, 0], two[:, -1] - two[:, 0]
    radius = support_radius(nearest, gap, m, settings.p_min, float(settings.threshold))
    spread = x.new_zeros(n)
    tied = torch.zeros(n, dtype=torch.bool, device=x.device)
    if settings.ties == "uniform" and m > 1:
        tied = gap == 0
        spread[tied] = 0.5 / m
    open_ = (~tied).nonzero()[:, 0]
    # The nearest point itself must not be lost to rounding: its radius may exceed its distance by less than an ulp.
    counts, points = near.within(queries[open_], (radius * (1 + 1e-14))[open_])
    index = torch.repeat_interleave(open_, counts)
    above = (squared_distance(x[index], y[points]).sqrt() - nearest[index]).clamp_min(0.0)
    similarity = torch.exp(-above * inverse_temperature(gap, m, settings.p_min)[index])
    total = torch.ones_like(nearest)
    total[open_] = segment_sums(similarity, ends_of(counts))
    scale = torch.zeros_like(nearest)
    scale[open_] = torch.where(counts == m, 0.0, 1.0 / total[open_])
    return _Softmin(index, points, 0.5 * similarity / total[index], scale, spread)


def _add_uniform(plan: PairPlan, pred_grad: Tensor | None, gt_grad: Tensor | None) -> Tensor:
    """The loss of the uniform part; its gradients are added in place to the two given."""
    loss = plan.x.new_zeros(())
    for rows, columns, p in _uniform_blocks(plan):
        x, y = plan.x[rows], plan.y[columns]
        cost = pairwise_cost(x, y)
        loss = loss + (p * cost).sum()
        if pred_grad is None or gt_grad is None:
            continue
        weight = pull(p, cost)
        for k in range(x.shape[1]):
            force = weight * (x[:, None, k] - y[None, :, k])
            pred_grad[rows, k] += force.sum(dim=1)
            gt_grad[columns, k] -= force.sum(dim=0)
    return loss


def _with_uniform_entries(plan: PairPlan) -> SparseMatrix:
    """The whole plan as entries: tied rows and columns written out, N or M entries each."""
    rows, columns, values = [plan.entries.rows], [plan.entries.columns], [plan.entries.values]
    for block_rows, block_columns, p in _uniform_blocks(plan):
        grid = torch.meshgrid(block_rows, block_columns, indexing="ij")
        rows.append(grid[0].reshape(-1))
        columns.append(grid[1].reshape(-1))
        values.append(p.reshape(-1))
    shape = (len(plan.x), len(plan.y))
    return SparseMatrix(torch.cat(rows), torch.cat(columns), torch.cat(values), shape)


def _uniform_blocks(plan: PairPlan) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Row indices, column indices and the plan's values on their grid: first tied rows, then tied columns.

    The sum u_i + v_j is split into the two, so a pair that is tied both ways appears in both, with a share in each.
    """
    n, m = len(plan.x), len(plan.y)
    device = plan.x.device
    for rows in plan.u.nonzero()[:, 0].split(max(1, BLOCK_ENTRIES // m)):
        yield rows, torch.arange(m, device=device), (plan.r * plan.u)[rows, None] * plan.c
    for columns in plan.v.nonzero()[:, 0].split(max(1, BLOCK_ENTRIES // n)):
        yield torch.arange(n, device=device), columns, plan.r[:, None] * (plan.c * plan.v)[columns]
