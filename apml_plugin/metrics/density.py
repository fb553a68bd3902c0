"""Density-aware Chamfer distance."""

from __future__ import annotations

import torch
from torch import Tensor

from apml_plugin.errors import LossValueError
from apml_plugin.functional import nearest_neighbours

from .inputs import for_each_pair


def dcd(pred: Tensor, gt: Tensor, alpha: float = 1000.0, n_lambda: float = 1.0, non_reg: bool = False) -> Tensor:
    """Density-aware Chamfer distance (Wu et al., NeurIPS 2021, section 3.2), in the form its published code computes.

    Half the sum, over both directions, of the mean of ``1 - r exp(-alpha d^2) / (c^n_lambda + 1e-6)``: d is the
    distance to the nearest point of the other cloud, c how many points share that nearest one, r the ratio of the
    clouds' sizes (with ``non_reg`` at least 1). About 0 for equal clouds, at most 1, lower is better; with clouds of
    different sizes it can be below 0 unless ``non_reg``. ``alpha`` in one over squared units of the coordinates.

    Args: (N, D) and (M, D), or (B, N, D) and (B, M, D). Returns 0-dim or (B,). Raises LossValueError for alpha or
    n_lambda below 0 and for unusable clouds.
    """
    if alpha < 0 or n_lambda < 0:
        raise LossValueError(f"alpha={alpha!r} and n_lambda={n_lambda!r} must not be negative")

    def one(x: Tensor, y: Tensor) -> float:
        return float(dcd_of(*nearest_neighbours(x, y), *nearest_neighbours(y, x), alpha, n_lambda, non_reg))

    return for_each_pair(pred, gt, one)


def dcd_of(
    there: Tensor,
    to_gt: Tensor,
    back: Tensor,
    to_pred: Tensor,
    alpha: float = 1000.0,
    n_lambda: float = 1.0,
    non_reg: bool = False,
) -> Tensor:
    """:func:`dcd` of one pair from its nearest neighbours: distances and indices (N,), and (M,) the other way."""
    n, m = len(there), len(back)
    sides = ((there, to_gt, m, n / m), (back, to_pred, n, m / n))
    total = there.new_zeros(())
    for distance, index, targets, ratio in sides:
        shared = torch.bincount(index, minlength=targets)[index].to(distance.dtype)
        weight = (max(1.0, ratio) if non_reg else ratio) / (shared**n_lambda + 1e-6)
        total = total + (1 - torch.exp(-alpha * distance.square()) * weight).mean()
    return total / 2
