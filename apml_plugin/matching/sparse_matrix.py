"""A sparse matrix, and Sinkhorn on it: the plan is ``diag(r) S diag(c)``, so an iteration is two products with S.

The scaling form is exact, eps included: dividing a row of the plan by its sum multiplies r alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from scipy import sparse
from torch import Tensor

ABSORB_EVERY = 8
"""Iterations after which r and c are multiplied into S.

A row that has lost its partners grows by up to 1/eps = 1e8 in an iteration; 8 iterations stay inside float64.
"""


class SparseMatrix:
    """A float64 matrix (N, M); entries given twice are added.

    Attributes:
        rows, columns: int64 (nnz,), sorted by row, then column.
        values: float64 (nnz,), changed in place by ``scale``.
    """

    def __init__(self, rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> None:
        self.shape = shape
        self._matrix: Any
        if values.device.type == "cuda":
            merged = torch.sparse_coo_tensor(torch.stack((rows, columns)), values, shape).coalesce()
            self.rows, self.columns = merged.indices()
            self.values = merged.values()
            # The transposed product must not scatter: the order of its additions would change from run to run.
            self._by_column = torch.argsort(self.columns, stable=True)
            self._row_ends = ends_of(torch.bincount(self.rows, minlength=shape[0]))
            self._column_ends = ends_of(torch.bincount(self.columns, minlength=shape[1]))
        else:
            coordinates = (values.numpy(), (rows.numpy(), columns.numpy()))
            self._matrix = sparse.coo_matrix(coordinates, shape=shape).tocsr()
            self._matrix.sort_indices()
            matrix = self._matrix
            self.columns = torch.from_numpy(matrix.indices.astype("int64"))
            self.values = torch.from_numpy(matrix.data)  # shared: scaling the values scales the matrix
            self._row_ends = torch.from_numpy(matrix.indptr.astype("int64"))
            self.rows = torch.repeat_interleave(torch.arange(shape[0]), self._row_ends.diff())

    def rows_dot(self, c: Tensor) -> Tensor:
        """``sum_j S_ij c_j``: (M,) to (N,)."""
        if self.values.device.type == "cuda":
            csr = torch.sparse_csr_tensor(self._row_ends, self.columns, self.values, self.shape)
            return csr @ c
        return torch.from_numpy(self._matrix @ c.numpy())

    def columns_dot(self, r: Tensor) -> Tensor:
        """``sum_i S_ij r_i``: (N,) to (M,)."""
        if self.values.device.type == "cuda":
            rows, values = self.rows[self._by_column], self.values[self._by_column]
            return torch.sparse_csr_tensor(self._column_ends, rows, values, self.shape[::-1]) @ r
        return torch.from_numpy(self._matrix.T @ r.numpy())

    def scale(self, r: Tensor, c: Tensor) -> None:
        """Replaces S by ``diag(r) S diag(c)``."""
        self.values *= r[self.rows] * c[self.columns]

    def row_sums_of(self, values: Tensor) -> Tensor:
        """Adds up (nnz,) values of the entries by row."""
        return segment_sums(values, self._row_ends)

    def column_sums_of(self, values: Tensor) -> Tensor:
        """Adds up (nnz,) values of the entries by column."""
        if values.device.type == "cuda":
            return segment_sums(values[self._by_column], self._column_ends)
        return torch.zeros(self.shape[1], dtype=values.dtype).index_add_(0, self.columns, values)


def ends_of(counts: Tensor) -> Tensor:
    """Where segments of these lengths (n,) begin and end: (n + 1,), from 0."""
    return torch.cat((counts.new_zeros(1), counts.cumsum(0)))


def segment_sums(values: Tensor, ends: Tensor) -> Tensor:
    """Sums (n,) of consecutive segments of (nnz,), in a fixed order on every device."""
    if len(values) == 0 or len(ends) == 1:  # torch.segment_reduce rejects these
        return values.new_zeros(len(ends) - 1)
    return torch.segment_reduce(values, "sum", offsets=ends, initial=0.0)


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
    """Scales ``kernel.sparse`` in place into the entries of the plan.

    Returns:
        r (N,) and c (M,), the whole scaling, which applies to the dropped entries and the uniform part too.
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
            if uniform:  # r and c grow and shrink against each other; only their product matters
                level = r_total.max()
                r_total, c_total = r_total / level, c_total * level
            r, c = torch.ones_like(u), torch.ones_like(v)
    return r_total, c_total
