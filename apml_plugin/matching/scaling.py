"""Sinkhorn in scaling form: the plan is ``diag(r) S diag(c)``, so an iteration is two products with S.

Exact, eps included: dividing a row of the plan by its sum multiplies r alone (apml.md, "Two identities").
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from apml_plugin.matching.csr import SparseMatrix

ABSORB_EVERY = 8
"""Iterations between two absorptions of r and c into S.

A row cut off from its partners grows by up to 1/eps = 1e8 an iteration; 8 of them stay far inside float64.
"""


@dataclass
class Kernel:
    """``S = sparse + u 1^T + 1 v^T``: u and v hold the uniform shares of tied rows and columns, mostly 0."""

    sparse: SparseMatrix
    u: Tensor  # (N,)
    v: Tensor  # (M,)

    @property
    def has_uniform_part(self) -> bool:
        return bool(self.u.any()) or bool(self.v.any())


def sinkhorn(kernel: Kernel, iterations: int, eps: float) -> tuple[Tensor, Tensor]:
    """Scales ``kernel.sparse`` in place into the plan's own entries.

    Returns:
        r (N,) and c (M,), the whole scaling: what the dropped entries and the uniform part are scaled by.
    """
    s, u, v = kernel.sparse, kernel.u, kernel.v
    uniform = kernel.has_uniform_part
    r_total, c_total = torch.ones_like(u), torch.ones_like(v)
    r, c = torch.ones_like(u), torch.ones_like(v)
    for step in range(1, iterations + 1):
        row = s.rows_dot(c)
        if uniform:
            scaled = c_total * c
            row = row + r_total * (u * scaled.sum() + (v * scaled).sum())
        r = r / (r * row + eps)
        column = s.columns_dot(r)
        if uniform:
            scaled = r_total * r
            column = column + c_total * ((u * scaled).sum() + v * scaled.sum())
        c = c / (c * column + eps)
        if step % ABSORB_EVERY == 0 or step == iterations:
            s.scale(r, c)
            r_total, c_total = r_total * r, c_total * c
            if uniform:  # r and 1/r drift together; the product is what counts
                level = r_total.max()
                r_total, c_total = r_total / level, c_total * level
            r, c = torch.ones_like(u), torch.ones_like(v)
    return r_total, c_total
