"""APML from its sparse support: the dense numbers without an N x M tensor.

Only entries whose one-sided similarity exceeds ``threshold`` are kept: a ball around each point, found by a
neighbour search in both directions (apml.md, "The sparse support"). Computed in float64 throughout: the
scalings of an untrained network's blob span 1e-23 to 1e+23.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from apml_plugin.errors import BackendError
from apml_plugin.matching import uniform
from apml_plugin.matching.auto_threshold import START, Tightening
from apml_plugin.matching.csr import SparseMatrix, ends_of, segment_sums
from apml_plugin.matching.dense import pull
from apml_plugin.matching.scaling import Kernel, sinkhorn
from apml_plugin.matching.search import Neighbours, neighbours_of, squared_distance
from apml_plugin.matching.settings import AUTO, Settings
from apml_plugin.matching.temperature import inverse_temperature, support_radius


@dataclass
class PairPlan:
    """The plan of one pair, x = pred (N, D) and y = gt (M, D) in float64, N, M >= 1.

    Attributes:
        entries: the kept entries of the plan; ``entries.values`` are the P_ij.
        r, c: the whole Sinkhorn scaling, (N,) and (M,).
        u, v: uniform shares of tied rows and columns before scaling (``ties="uniform"`` only).
        threshold: the one that was used.
        dropped: at most this much mass, of M, would the dropped entries carry under the same scaling.
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
    if settings.threshold != AUTO:
        return _plan_at(pred, gt, neighbours_of(pred), neighbours_of(gt), settings, float(settings.threshold))
    near_pred, near_gt = neighbours_of(pred), neighbours_of(gt)
    tightening = Tightening()
    threshold: float | None = START
    while threshold is not None:
        plan = _plan_at(pred, gt, near_pred, near_gt, settings, threshold)
        threshold = tightening.after(threshold, [(plan.dropped, len(gt))])
    return plan


def solve(
    pred: Tensor, gt: Tensor, settings: Settings, gradients: bool = True
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Loss (0-dim, float64) of one pair (N, D), (M, D) and its two gradients, from one last sweep."""
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
        loss = loss + uniform.add_sweep(plan, pred_grad, gt_grad)
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
        entries = uniform.with_entries(plan)
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
    """x (n, D) against y (m, D) in float64; ``queries`` are x in their own dtype, which the search wants."""
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
    # Rounding must not lose the nearest point itself, whose radius may exceed its distance by less than an ulp.
    counts, points = near.within(queries[open_], (radius * (1 + 1e-14))[open_])
    index = torch.repeat_interleave(open_, counts)
    above = (squared_distance(x[index], y[points]).sqrt() - nearest[index]).clamp_min(0.0)
    similarity = torch.exp(-above * inverse_temperature(gap, m, settings.p_min)[index])
    total = torch.ones_like(nearest)
    total[open_] = segment_sums(similarity, ends_of(counts))
    scale = torch.zeros_like(nearest)
    scale[open_] = torch.where(counts == m, 0.0, 1.0 / total[open_])
    return _Softmin(index, points, 0.5 * similarity / total[index], scale, spread)
