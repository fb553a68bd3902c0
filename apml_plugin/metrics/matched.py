"""How far apart matched points are: the distribution behind a mean distance."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from apml_plugin.errors import LossValueError
from apml_plugin.functional import matching_plan, nearest_neighbours

from .inputs import check

MATCHINGS = ("nearest", "emd", "apml")


def matched_distances(pred: Tensor, gt: Tensor, matching: str = "nearest") -> tuple[Tensor, Tensor]:
    """(K,) Euclidean distances of matched points, and (K,) weights that sum to 1, of one pair of clouds.

    ``matching``: ``"nearest"``: each point with the nearest of the other cloud, both ways, each cloud weighing half
    (its mean is :func:`cd_l1`); ``"emd"``: the one-to-one assignment of least total distance, by SciPy (its mean is
    :func:`emd`; N x N memory); ``"apml"``: the plan of :func:`apml_plugin.matching_plan`, each entry weighing as much
    as it matches (its mean is APML's loss with ``reduction='mean'``).

    Args: (N, D) and (M, D). Float64, no gradient. Raises LossValueError for an unknown matching, for unusable clouds
    and, with ``"emd"``, for unequal numbers of points.
    """
    if matching not in MATCHINGS:
        raise LossValueError(f"matching={matching!r} must be one of {', '.join(MATCHINGS)}")
    check(pred, gt)
    if pred.ndim != 2:
        raise LossValueError(f"pred must be one cloud (N, D) here, got {tuple(pred.shape)}; go through the batch")
    with torch.no_grad():
        x, y = pred.double(), gt.double()
        if matching == "nearest":
            there, back = nearest_neighbours(x, y)[0], nearest_neighbours(y, x)[0]
            weights = [torch.full_like(part, 0.5 / len(part)) for part in (there, back)]
            return torch.cat([there, back]), torch.cat(weights)
        if matching == "apml":
            plan = matching_plan(x[None], y[None])
            _, i, j = plan.indices()
            weights = plan.values().double()
            return (x[i] - y[j]).norm(dim=-1), weights / weights.sum()
        if len(x) != len(y):
            raise LossValueError(f"matching='emd' needs as many predicted as true points, got {len(x)} and {len(y)}")
        cost = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
        rows, columns = linear_sum_assignment(cost.cpu().numpy())
        apart = cost[torch.as_tensor(rows), torch.as_tensor(columns)]
        return apart, torch.full_like(apart, 1 / len(apart))


def matched_distance_quantiles(
    pred: Tensor, gt: Tensor, quantiles: Sequence[float] = (0.5, 0.9, 0.99), matching: str = "nearest"
) -> Tensor:
    """The least distance within which a share q of all matched mass lies, for each q of ``quantiles``.

    Distances in the unit of the coordinates; a mean hides a few points far off, these do not. ``matching`` as in
    :func:`matched_distances`.

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


def weighted_quantile(values: Tensor, weights: Tensor, q: float) -> Tensor:
    """The least of ``values`` (K,) within which the share q of all ``weights`` (K,) lies; 0-dim."""
    order = values.argsort()
    reached = weights[order].cumsum(0)
    # A sum of many weights is a rounding off: the share must not be missed by it.
    target = q * reached[-1] * (1 - 1e-12)
    at = int(torch.searchsorted(reached, target))
    return values[order[min(at, len(order) - 1)]]
