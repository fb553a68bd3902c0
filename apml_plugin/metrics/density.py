"""Density-aware Chamfer distance."""

from __future__ import annotations

from torch import Tensor

from apml_plugin.functional import nearest_both_ways
from apml_plugin.losses import DCD
from apml_plugin.matching.nearest import Nearest

from .inputs import for_each_pair


def dcd(pred: Tensor, gt: Tensor, alpha: float = 1000.0, n_lambda: float = 1.0, non_reg: bool = False) -> Tensor:
    """Density-aware Chamfer distance (Wu et al., NeurIPS 2021): the loss :class:`apml_plugin.DCD` as a number.

    About 0 for equal clouds, at most 1 (with unequal numbers of points it can leave [0, 1]: see the loss); lower is
    better. ``alpha`` in one over squared units of the coordinates.

    Args: (N, D) and (M, D), or (B, N, D) and (B, M, D); the rest as the loss. Returns 0-dim or (B,). Raises
    LossValueError for arguments out of range and for unusable clouds.
    """
    loss = DCD(alpha, n_lambda, non_reg)
    return for_each_pair(pred, gt, lambda x, y: dcd_of(nearest_both_ways(x[None], y[None]), loss))


def dcd_of(near: Nearest, loss: DCD | None = None) -> float:
    """:func:`dcd` of one pair whose nearest neighbours are known."""
    loss = loss or DCD()
    return float(loss.combined([loss.pooled(near.xy), loss.pooled(near.yx)])[0])
