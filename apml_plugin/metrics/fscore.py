"""F-score of a reconstruction."""

from __future__ import annotations

from torch import Tensor

from apml_plugin.errors import LossValueError
from apml_plugin.functional import nearest_neighbours

from .inputs import for_each_pair


def f_score(pred: Tensor, gt: Tensor, threshold: float = 0.01) -> Tensor:
    """Harmonic mean of precision and recall (Tatarchenko et al. 2019; PoinTr's F-Score@1% on unit-sized shapes).

    Precision is the share of pred points nearer than ``threshold`` to gt, recall that of gt points nearer than it to
    pred; strictly nearer, Euclidean. 0 where both are 0. Between 0 and 1, higher is better.

    Args: (N, D) and (M, D), or (B, N, D) and (B, M, D); ``threshold`` in the unit of the coordinates.
    Returns 0-dim or (B,). Raises LossValueError for a threshold that is not positive and for unusable clouds.
    """
    if not threshold > 0:
        raise LossValueError(f"threshold={threshold!r} must be a positive distance")

    def one(x: Tensor, y: Tensor) -> float:
        precision = float((nearest_neighbours(x, y)[0] < threshold).double().mean())
        recall = float((nearest_neighbours(y, x)[0] < threshold).double().mean())
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0

    return for_each_pair(pred, gt, one)
