"""Jensen-Shannon divergence between where two sets of clouds put their points."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from apml_plugin.errors import LossValueError

from .inputs import check_set


def jsd(
    samples: Sequence[Tensor] | Tensor,
    references: Sequence[Tensor] | Tensor,
    resolution: int = 28,
    bounds: tuple[float, float] | None = (-0.5, 0.5),
) -> Tensor:
    """Jensen-Shannon divergence, base 2, of the two sets' points over a grid (Achlioptas et al., ICML 2018, section 4).

    All points of a set are counted into a grid of ``resolution`` cells an axis; the two histograms, each summing to 1,
    are compared: 0 where they agree, 1 where they share no cell. The paper's grid is 28 wide over the cube from -0.5
    to 0.5. It says how a set covers space, nothing about single shapes.

    Args:
        samples, references: sets of clouds: (S, N, D), or a sequence of (N_i, D) tensors.
        resolution: cells along each axis.
        bounds: (low, high) of the grid along each axis, in the unit of the coordinates; None takes the joint
            bounding cube.

    Returns a 0-dim float64 tensor. Raises LossValueError for points outside ``bounds`` (they are never clipped), for
    unusable sets and for a resolution below 1.
    """
    if not isinstance(resolution, int) or resolution < 1:
        raise LossValueError(f"resolution={resolution!r} must be a positive whole number")
    sets = [
        torch.cat([c.double() for c in check_set(n, s)]) for n, s in (("samples", samples), ("references", references))
    ]
    if sets[0].shape[1] != sets[1].shape[1]:
        raise LossValueError(f"samples have {sets[0].shape[1]} coordinates a point, references {sets[1].shape[1]}")
    low, high = _cube(sets) if bounds is None else bounds
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise LossValueError(f"bounds={bounds!r} must be (low, high) with low < high")
    p, q = (_histogram(points, resolution, low, high) for points in sets)
    mean = (p + q) / 2
    return (_entropy(mean) - (_entropy(p) + _entropy(q)) / 2).clamp(min=0)


def _cube(sets: list[Tensor]) -> tuple[float, float]:
    low, high = float(min(s.min() for s in sets)), float(max(s.max() for s in sets))
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def _histogram(points: Tensor, resolution: int, low: float, high: float) -> Tensor:
    outside = int(((points < low) | (points > high)).any(1).sum())
    if outside:
        raise LossValueError(
            f"{outside} of {len(points)} points lie outside bounds=({low:g}, {high:g}); scale the clouds into it, give "
            "wider bounds, or bounds=None for the joint bounding cube"
        )
    cells = ((points - low) / (high - low) * resolution).long().clamp(max=resolution - 1)
    strides = torch.tensor([resolution**k for k in range(points.shape[1])], device=points.device)
    counts = torch.bincount((cells * strides).sum(1), minlength=resolution ** points.shape[1])
    return counts.double() / len(points)


def _entropy(p: Tensor) -> Tensor:
    return -torch.special.xlogy(p, p).sum() / math.log(2)
