"""A sparse matrix that does what Sinkhorn needs: two products, and its entries in row order."""

from __future__ import annotations

from typing import Any

import torch
from scipy import sparse
from torch import Tensor


class SparseMatrix:
    """A float64 matrix (N, M); entries given twice are added.

    Attributes:
        rows, columns: int64 (nnz,), sorted by row, then column.
        values: float64 (nnz,). Written in place by ``scale``.
    """

    def __init__(self, rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> None:
        self.shape = shape
        self._matrix: Any
        if values.device.type == "cuda":
            merged = torch.sparse_coo_tensor(torch.stack((rows, columns)), values, shape).coalesce()
            self.rows, self.columns = merged.indices()
            self.values = merged.values()
            # The transposed product must not scatter: that would add in an order which changes from run to run.
            self._by_column = torch.argsort(self.columns, stable=True)
            self._row_ends = _ends(self.rows, shape[0])
            self._column_ends = _ends(self.columns[self._by_column], shape[1])
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


def _ends(sorted_index: Tensor, size: int) -> Tensor:
    return ends_of(torch.bincount(sorted_index, minlength=size))


def ends_of(counts: Tensor) -> Tensor:
    """Where segments of these lengths (n,) begin and end: (n + 1,), from 0."""
    return torch.cat((counts.new_zeros(1), counts.cumsum(0)))


def segment_sums(values: Tensor, ends: Tensor) -> Tensor:
    """Sums (n,) of consecutive segments of (nnz,), in a fixed order on every device."""
    if len(values) == 0 or len(ends) == 1:  # which torch.segment_reduce refuses
        return values.new_zeros(len(ends) - 1)
    return torch.segment_reduce(values, "sum", offsets=ends, initial=0.0)
