"""Metrics of a set of generated clouds against a set of true ones (Achlioptas et al., ICML 2018, section 4).

A set is a (S, N, D) tensor or a sequence of (N_i, D) tensors. Unusable sets raise LossValueError.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from apml_plugin.errors import LossValueError

from .inputs import check_set
from .pairs import cd_l1, cd_l2, emd

Clouds = Sequence[Tensor] | Tensor

DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"CDL1": cd_l1, "CDL2": cd_l2, "EMD": emd}


def pairwise_distances(samples: Clouds, references: Clouds, distance: str = "CDL2") -> Tensor:
    """(S, R) distances of every sample cloud to every reference cloud: of which coverage and MMD are made.

    ``distance`` is ``"CDL1"``, ``"CDL2"`` or ``"EMD"``, not scaled. Float64 on the CPU. Raises LossValueError for an
    unknown distance.
    """
    if distance not in DISTANCES:
        raise LossValueError(f"distance={distance!r} must be one of {', '.join(DISTANCES)}")
    rows, columns = check_set("samples", samples), check_set("references", references)
    measure = DISTANCES[distance]
    return torch.tensor([[float(measure(x.double(), y.double())) for y in columns] for x in rows], dtype=torch.float64)


def coverage(samples: Clouds, references: Clouds, distance: str = "CDL2") -> Tensor:
    """Share of the references that are the nearest reference of at least one sample. 0 to 1, higher is better.

    Args: as :func:`pairwise_distances`. Among equally near references the first counts. 0-dim float64.
    """
    return coverage_of(pairwise_distances(samples, references, distance))


def minimum_matching_distance(samples: Clouds, references: Clouds, distance: str = "CDL2") -> Tensor:
    """Mean, over the references, of the distance to the nearest sample (MMD), in the unit of ``distance``.

    Lower is better. Not the maximum mean discrepancy, which has the same initials.

    Args: as :func:`pairwise_distances`. 0-dim float64.
    """
    return mmd_of(pairwise_distances(samples, references, distance))


def coverage_of(distances: Tensor) -> Tensor:
    """Coverage from (S, R) distances."""
    return torch.tensor(len(set(distances.argmin(1).tolist())) / distances.shape[1], dtype=torch.float64)


def mmd_of(distances: Tensor) -> Tensor:
    """Minimum matching distance from (S, R) distances."""
    return distances.amin(0).mean()


def jsd(
    samples: Clouds, references: Clouds, resolution: int = 28, bounds: tuple[float, float] | None = (-0.5, 0.5)
) -> Tensor:
    """Jensen-Shannon divergence, base 2, of the two sets' points over a grid (Achlioptas et al., ICML 2018, section 4).

    All points of a set are counted into a grid of ``resolution`` cells an axis; the two histograms, each summing to 1,
    are compared: 0 where they agree, 1 where they share no cell. The paper's grid is 28 wide over the cube from -0.5
    to 0.5. It describes how a set covers space and says nothing about single shapes.

    Args:
        resolution: cells along each axis.
        bounds: (low, high) of the grid along each axis, in the unit of the coordinates; None takes the joint
            bounding cube.

    Returns a 0-dim float64 tensor. Raises LossValueError for points outside ``bounds`` (they are never clipped) and
    for a resolution below 1.
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
    divergence: Tensor = _entropy(mean) - (_entropy(p) + _entropy(q)) / 2
    return divergence.clamp(min=0)


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
    entropy: Tensor = -torch.special.xlogy(p, p).sum() / math.log(2)
    return entropy
