"""APML from its sparse support: the values of the dense backend without an N x M tensor.

Only entries whose one-sided similarity exceeds a point's threshold are kept: those within a radius of each point, found
by a neighbour search in both directions. Computed in float64 throughout, because the scalings of an untrained network's
prediction span 1e-23 to 1e+23.

With ``ties="uniform"`` a tied row or column spreads over every point of the other cloud. These rows and columns are
kept as two vectors; Sinkhorn needs only sums over them, and everything else visits their pairs in blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from apml_plugin.errors import BackendError
from apml_plugin.matching.dense import inverse_temperature, pairwise_cost, pull, support_radius
from apml_plugin.matching.search import Neighbours, neighbours_of, squared_distance
from apml_plugin.matching.settings import (
    AUTO,
    ROUNDS,
    Settings,
    first_threshold,
    next_thresholds,
    tolerance,
    warn_if_inexact,
)
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
        dropped: under the same scaling the dropped entries carry at most this much of the mass M.
    """

    x: Tensor
    y: Tensor
    entries: SparseMatrix
    r: Tensor
    c: Tensor
    u: Tensor
    v: Tensor
    dropped: float


def pair_plan(pred: Tensor, gt: Tensor, settings: Settings) -> PairPlan:
    """The plan of (N, D) and (M, D), N, M >= 1."""
    x, y = pred.double(), gt.double()
    by_row = _Softmin(x, y, pred, neighbours_of(gt), settings)
    by_column = _Softmin(y, x, gt, neighbours_of(pred), settings)
    most = tolerance(pred.dtype) * len(gt)
    for attempt in range(ROUNDS):
        plan = _plan_of(x, y, by_row, by_column, settings)
        if settings.threshold != AUTO or plan.dropped <= most or attempt + 1 == ROUNDS:
            break
        lowered = by_row.lower(plan.r, plan.c.sum(), most / len(pred))
        if not by_column.lower(plan.c, plan.r.sum(), most / len(gt)) and not lowered:
            break
    warn_if_inexact(settings, pred.dtype, [plan.dropped], [len(gt)])
    return plan


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


class _Softmin:
    """The one-sided softmin of every query x (n, D) over the points y (m, D), both float64.

    Attributes:
        threshold: similarities at or below it are left out, (n,).
        uniform: half the uniform share of tied queries under ``ties="uniform"``, else 0, (n,).
        scale: 1 / denominator of each query's kept entries; 0 where none is left out, (n,). Set by :meth:`entries`.
    """

    def __init__(self, x: Tensor, y: Tensor, queries: Tensor, near: Neighbours, settings: Settings) -> None:
        """queries: x in its original dtype, which the search takes."""
        n, m = len(x), len(y)
        self.x, self.y, self.queries, self.near = x, y, queries, near
        two = squared_distance(x[:, None], y[near.nearest(queries, min(2, m))]).sqrt().sort(dim=-1).values
        self.nearest, gap = two[:, 0], two[:, -1] - two[:, 0]
        self.inverse = inverse_temperature(gap, m, settings.p_min)
        self.threshold = torch.full_like(gap, settings.number or first_threshold(m, settings.p_min, queries.dtype))
        self.uniform = x.new_zeros(n)
        tied = torch.zeros(n, dtype=torch.bool, device=x.device)
        if settings.ties == "uniform" and m > 1:
            tied = gap == 0
            self.uniform[tied] = 0.5 / m
        self.open = (~tied).nonzero()[:, 0]
        self.scale = torch.zeros_like(gap)

    def entries(self) -> tuple[Tensor, Tensor, Tensor]:
        """Query, point and value of the kept entries: half the softmin."""
        radius = support_radius(self.nearest, self.inverse, self.threshold)
        # The nearest point itself must not be lost to rounding: its radius may exceed its distance by less than an ulp.
        counts, points = self.near.within(self.queries[self.open], (radius * (1 + 1e-14))[self.open])
        index = torch.repeat_interleave(self.open, counts)
        above = (squared_distance(self.x[index], self.y[points]).sqrt() - self.nearest[index]).clamp_min(0.0)
        similarity = torch.exp(-above * self.inverse[index])
        total = torch.ones_like(self.nearest)
        total[self.open] = segment_sums(similarity, ends_of(counts))
        self.scale[self.open] = torch.where(counts == len(self.y), 0.0, 1.0 / total[self.open])
        return index, points, 0.5 * similarity / total[index]

    def left_out(self, scaling: Tensor) -> Tensor:
        """Twice the most mass that the entries left out by all queries can carry, for partners of scaling 1; 0-dim."""
        return (scaling * self.scale * self.threshold).sum()

    def lower(self, scaling: Tensor, others: Tensor, most: float) -> bool:
        """Lowers thresholds (:func:`~apml_plugin.matching.settings.next_thresholds`). Returns whether any was."""
        before = self.threshold
        self.threshold = next_thresholds(before, most, scaling, self.scale, others)
        return bool((self.threshold < before).any())


def _plan_of(x: Tensor, y: Tensor, by_row: _Softmin, by_column: _Softmin, settings: Settings) -> PairPlan:
    rows, columns = by_row.entries(), by_column.entries()
    entries = SparseMatrix(
        torch.cat((rows[0], columns[1])),
        torch.cat((rows[1], columns[0])),
        torch.cat((rows[2], columns[2])),
        (len(x), len(y)),
    )
    kernel = Kernel(entries, by_row.uniform, by_column.uniform)
    r, c = sinkhorn(kernel, settings.iterations, settings.eps)
    dropped = 0.5 * (by_row.left_out(r) * c.sum() + r.sum() * by_column.left_out(c))
    bound = float(torch.nan_to_num(dropped, nan=float("inf"), posinf=float("inf")))
    return PairPlan(x, y, entries, r, c, kernel.u, kernel.v, bound)


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
