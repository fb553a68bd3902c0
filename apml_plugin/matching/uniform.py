"""The rank-one part of ``ties="uniform"``: rows and columns that spread over every point of the other cloud.

Sinkhorn needs only sums over them (``scaling.py``). The loss, the gradient and the written-out plan visit
their pairs here, in blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from apml_plugin.matching.csr import SparseMatrix
from apml_plugin.matching.dense import pairwise_cost, pull

if TYPE_CHECKING:
    from apml_plugin.matching.sparse import PairPlan

BLOCK_ENTRIES = 1 << 22


def add_sweep(plan: PairPlan, pred_grad: Tensor | None, gt_grad: Tensor | None) -> Tensor:
    """The loss of the uniform part; its gradients are added to the two given in place."""
    loss = plan.x.new_zeros(())
    for rows, columns, p in _blocks(plan):
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


def with_entries(plan: PairPlan) -> SparseMatrix:
    """The whole plan as entries: tied rows and columns written out, N or M entries each."""
    rows, columns, values = [plan.entries.rows], [plan.entries.columns], [plan.entries.values]
    for block_rows, block_columns, p in _blocks(plan):
        grid = torch.meshgrid(block_rows, block_columns, indexing="ij")
        rows.append(grid[0].reshape(-1))
        columns.append(grid[1].reshape(-1))
        values.append(p.reshape(-1))
    shape = (len(plan.x), len(plan.y))
    return SparseMatrix(torch.cat(rows), torch.cat(columns), torch.cat(values), shape)


def _blocks(plan: PairPlan) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Row indices, column indices and the plan's values on their grid: first tied rows, then tied columns.

    The sum u_i + v_j splits into the two, so a pair tied both ways appears in both, each with its own share.
    """
    n, m = len(plan.x), len(plan.y)
    device = plan.x.device
    for rows in plan.u.nonzero()[:, 0].split(max(1, BLOCK_ENTRIES // m)):
        yield rows, torch.arange(m, device=device), (plan.r * plan.u)[rows, None] * plan.c
    for columns in plan.v.nonzero()[:, 0].split(max(1, BLOCK_ENTRIES // n)):
        yield torch.arange(n, device=device), columns, plan.r[:, None] * (plan.c * plan.v)[columns]
