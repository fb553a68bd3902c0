"""Ground costs, the softmin over the columns of a cost matrix, and the temperatures of Sinkhorn iterations.

Distances are computed from differences, never from ``xx - 2 xy + yy``: exact to the last digits however far the clouds
are from the origin, and 0 on the diagonal, with derivative 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from apml_plugin.arguments import whole
from apml_plugin.errors import LossValueError

Cost = Callable[[Tensor, Tensor], Tensor]
"""(n, D) and (m, D) give (n, m)."""

MISSING = -100000.0
"""Logarithm of the weight 0, as in GeomLoss: finite, so that the difference of two is not NaN."""


def distances(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distances (n, m)."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def half_squares(x: Tensor, y: Tensor) -> Tensor:
    """Half the squared distances (n, m)."""
    return distances(x, y).square() / 2


def order(p: Any) -> int:
    """The argument p: 1 or 2."""
    if whole("p", p) not in (1, 2):
        raise LossValueError(f"p={p!r} must be 1 (cost d) or 2 (cost d^2/2); for another cost give cost=")
    return whole("p", p)


def ground_cost(p: int, cost: Callable[[Tensor, Tensor], Tensor] | None) -> Cost:
    """The distance (p = 1), half its square (p = 2), or the caller's function (1, n, D), (1, m, D) -> (1, n, m)."""
    if cost is None:
        return distances if p == 1 else half_squares

    return users_function("cost", cost)


def users_function(name: str, function: Callable[..., Tensor], **arguments: Any) -> Cost:
    """A caller's function of clouds (1, n, D) and (1, m, D) as one of (n, D) and (m, D). It must give (1, n, m)."""

    def matrix(x: Tensor, y: Tensor) -> Tensor:
        result = function(x[None], y[None], **arguments)
        if result.shape != (1, len(x), len(y)):
            raise LossValueError(
                f"{name}=: the function gave {tuple(result.shape)} for clouds {(1, *x.shape)} and {(1, *y.shape)}; "
                f"it must give {(1, len(x), len(y))}"
            )
        return result[0]

    return matrix


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
    """``function(rows of x, y, *others)``, block by block. For a gradient each block is computed a second time.

    Memory is that of one block, not of the matrix.
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
    """The same for several h, without gradients. ``keep`` holds the matrix in memory instead of computing it again."""

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


def diameter_of(x: Tensor, y: Tensor) -> float:
    """Diagonal of the joint bounding box of (n, D) and (m, D): no two points are further apart."""
    low = torch.minimum(x.detach().amin(dim=0), y.detach().amin(dim=0))
    high = torch.maximum(x.detach().amax(dim=0), y.detach().amax(dim=0))
    return float((high - low).norm())


def temperatures(p: int, diameter: float, blur: float, scaling: float) -> list[float]:
    """``diameter^p``, smaller by ``scaling^p`` at every step, and at last ``blur^p``.

    Clouds of diameter 0 (all points coincide) start at the blur.
    """
    start = diameter if diameter > 0 else blur
    steps = np.exp(np.arange(p * np.log(start), p * np.log(blur), p * np.log(scaling)))
    return [start**p, *steps.tolist(), blur**p]


def damping(eps: float, rho: float | None) -> float:
    """Factor of a softmin where masses need not be met exactly (reach given): ``1 / (1 + eps / rho)``."""
    return 1.0 if rho is None else 1 / (1 + eps / rho)
