"""Chamfer distances as PoinTr reports them."""

from __future__ import annotations

from torch import Tensor

from apml_plugin.functional import nearest_neighbours

from .inputs import for_each_pair


def cd_l1(pred: Tensor, gt: Tensor) -> Tensor:
    """Half the sum of the two mean Euclidean distances to the nearest point, in the unit of the coordinates.

    Args: (N, D) and (M, D), or (B, N, D) and (B, M, D). Returns 0-dim or (B,). Lower is better.
    Raises LossValueError for clouds that are unusable. PoinTr prints it times 1000.
    """
    return for_each_pair(pred, gt, _l1)


def cd_l2(pred: Tensor, gt: Tensor) -> Tensor:
    """Sum of the two mean squared distances to the nearest point, in squared units. Else as :func:`cd_l1`."""
    return for_each_pair(pred, gt, _l2)


def _l1(pred: Tensor, gt: Tensor) -> float:
    return float(nearest_neighbours(pred, gt)[0].mean() + nearest_neighbours(gt, pred)[0].mean()) / 2


def _l2(pred: Tensor, gt: Tensor) -> float:
    return float(nearest_neighbours(pred, gt)[0].square().mean() + nearest_neighbours(gt, pred)[0].square().mean())
