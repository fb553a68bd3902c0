"""Ground costs, and the softmin over the columns of a cost matrix, a block of rows at a time.

Distances are taken from differences, never from ``xx - 2 xy + yy``: exact to the last digits however far the clouds
are from the origin, 0 on the diagonal, with derivative 0 there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from apml_plugin.errors import LossValueError

Cost = Callable[[Tensor, Tensor], Tensor]
"""(n, D) and (m, D) give (n, m)."""

MISSING = -100000.0
"""Logarithm of a weight that is 0, as in GeomLoss: finite, so that no difference of two becomes NaN."""


def distances(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distances (n, m)."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def half_squares(x: Tensor, y: Tensor) -> Tensor:
    """Half the squared distances (n, m)."""
    return distances(x, y).square() / 2


def ground_cost(p: int, cost: Callable[[Tensor, Tensor], Tensor] | None) -> Cost:
    """The distance (p = 1), half its square (p = 2), or the caller's own (1, n, D), (1, m, D) -> (1, n, m)."""
    if cost is None:
        return distances if p == 1 else half_squares

    def own(x: Tensor, y: Tensor) -> Tensor:
        matrix = cost(x[None], y[None])
        if matrix.shape != (1, len(x), len(y)):
            raise LossValueError(
                f"cost=: the function gave {tuple(matrix.shape)} for clouds {(1, *x.shape)} and {(1, *y.shape)}; "
                f"it must give {(1, len(x), len(y))}"
            )
        return matrix[0]

    return own


def log_weights(a: Tensor) -> Tensor:
    """Logarithms of weights; 0 gets a very negative number."""
    return torch.where(a > 0, a, 1.0).log().where(a > 0, MISSING)


def row_blocks(rows: int, columns: int, device: torch.device) -> Iterator[tuple[int, int]]:
    """Bounds of blocks of rows whose part of the matrix is small (16 MB in float64 on a CPU)."""
    entries = 2**21 if device.type == "cpu" else 2**25
    step = max(1, entries // max(columns, 1))
    for start in range(0, rows, step):
        yield start, min(rows, start + step)


def by_rows(function: Callable[..., Tensor], x: Tensor, y: Tensor, *others: Tensor) -> Tensor:
    """``function(rows of x, y, *others)``, block by block; for a gradient each block is computed a second time.

    So memory is that of one block, not of the matrix.
    """
    blocks = list(row_blocks(len(x), len(y), x.device))
    again = torch.is_grad_enabled() and len(blocks) > 1
    parts = []
    for start, end in blocks:
        rows = x[start:end]
        if again:
            parts.append(checkpoint(function, rows, y, *others, use_reentrant=False, preserve_rng_state=False))
        else:
            parts.append(function(rows, y, *others))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def softmin(cost: Cost, eps: float, x: Tensor, y: Tensor, h: Tensor) -> Tensor:
    """``-eps log sum_j exp(h_j - C(x_i, y_j) / eps)``, (n,), differentiable in x, y and h."""

    def block(rows: Tensor, y: Tensor, h: Tensor) -> Tensor:
        return -eps * torch.sub(h, cost(rows, y), alpha=1 / eps).logsumexp(dim=1)

    return by_rows(block, x, y, h)


class Softmin:
    """The same for many h in turn, without gradients; ``keep`` holds the matrix instead of computing it each time."""

    def __init__(self, cost: Cost, x: Tensor, y: Tensor, keep: bool) -> None:
        self.cost, self.x, self.y = cost, x.detach(), y.detach()
        self.bounds = list(row_blocks(len(x), len(y), x.device))
        self.kept = [self._matrix(bounds) for bounds in self.bounds] if keep else None

    def _matrix(self, bounds: tuple[int, int]) -> Tensor:
        return self.cost(self.x[slice(*bounds)], self.y)

    def __call__(self, eps: float, h: Tensor) -> Tensor:
        matrices = self.kept if self.kept is not None else map(self._matrix, self.bounds)
        parts = [torch.sub(h, matrix, alpha=1 / eps).logsumexp(dim=1) for matrix in matrices]
        return torch.cat(parts) * -eps
