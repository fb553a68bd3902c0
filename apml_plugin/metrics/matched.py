"""The distribution of the distances of matched points, of which CD-L1, EMD and APML are means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from apml_plugin.errors import LossValueError
from apml_plugin.functional import matching_plan

from .inputs import Pair, check
from .pairs import assigned_distances, of_pairs

MATCHINGS = ("nearest", "emd", "apml")


def matched_distances(pred: Tensor, gt: Tensor, matching: str = "nearest", **plan: Any) -> tuple[Tensor, Tensor]:
    """(K,) Euclidean distances of matched points, and (K,) weights that sum to 1, of one pair of clouds.

    Args:
        pred, gt: (N, D) and (M, D).
        matching: ``"nearest"``: each point with the nearest of the other cloud, both ways, each cloud with half the
            weight (the mean is :func:`cd_l1`). ``"emd"``: the one-to-one assignment of least total distance (the mean
            is :func:`emd`). ``"apml"``: the entries of :func:`apml_plugin.matching_plan` with their
            values as weights (the mean is APML's loss with ``reduction='mean'``).
        plan: with ``"apml"``, arguments of the plan such as ``p_min``.

    Float64, no gradient. Raises LossValueError for an unknown matching, for unusable clouds and, with ``"emd"``, for
    unequal numbers of points.
    """
    if matching not in MATCHINGS:
        raise LossValueError(f"matching={matching!r} must be one of {', '.join(MATCHINGS)}")
    with torch.no_grad():
        pair = Pair.checked(pred, gt)
        if matching == "nearest":
            return _nearest(pair)
        if matching == "emd":
            distances = assigned_distances(pair.pred, pair.gt)
            return distances, torch.full_like(distances, 1 / len(distances))
        entries = matching_plan(pair.pred[None], pair.gt[None], **plan)
        _, i, j = entries.indices()
        weights = entries.values().double()
        return (pair.pred[i] - pair.gt[j]).norm(dim=-1), weights / weights.sum()


def _nearest(pair: Pair) -> tuple[Tensor, Tensor]:
    sides = (pair.to_gt, pair.to_pred)
    return torch.cat(sides), torch.cat([torch.full_like(side, 0.5 / len(side)) for side in sides])


def matched_distance_quantiles(
    pred: Tensor, gt: Tensor, quantiles: Sequence[float] = (0.5, 0.9, 0.99), matching: str = "nearest"
) -> Tensor:
    """The smallest distance that a share q of all matched mass does not exceed, for each q of ``quantiles``.

    Distances are in the unit of the coordinates. A mean hides a few points that are far off; quantiles show them.
    ``matching`` as in :func:`matched_distances`.

    Args: (N, D) and (M, D), or (B, N, D) and (B, M, D). Returns (Q,) or (B, Q) on pred's device. Raises
    LossValueError for a quantile outside [0, 1] and as :func:`matched_distances`.
    """
    wanted = list(quantiles)
    if not wanted or not all(0 <= q <= 1 for q in wanted):
        raise LossValueError(f"quantiles={quantiles!r} must be one or more numbers in [0, 1]")
    check(pred, gt)
    dtype = torch.promote_types(pred.dtype, torch.float32)
    if pred.ndim == 3:
        rows = [matched_distance_quantiles(x, y, wanted, matching) for x, y in zip(pred, gt, strict=True)]
        return torch.stack(rows) if rows else pred.new_zeros(0, len(wanted), dtype=dtype)
    distances, weights = matched_distances(pred, gt, matching)
    return torch.stack([weighted_quantile(distances, weights, q) for q in wanted]).to(dtype)


@of_pairs
def percentile(pair: Pair, q: float = 0.95) -> float:
    """The quantile q of the distances to the nearest point, both ways, each cloud with half the weight."""
    return float(weighted_quantile(*_nearest(pair), q))


def weighted_quantile(values: Tensor, weights: Tensor, q: float) -> Tensor:
    """The smallest of ``values`` (K,) such that those up to it hold a share q of all ``weights`` (K,); 0-dim."""
    order = values.argsort()
    reached = weights[order].cumsum(0)
    # A sum of many weights is off by rounding, which must not lead past the share.
    at = int(torch.searchsorted(reached, q * reached[-1] * (1 - 1e-12)))
    return values[order[min(at, len(order) - 1)]]
