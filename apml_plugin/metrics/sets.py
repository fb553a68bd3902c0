"""Metrics of a set of generated clouds against a set of true ones (Achlioptas et al., ICML 2018, section 4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from apml_plugin.errors import LossValueError

from .chamfer import cd_l1, cd_l2
from .emd import emd
from .inputs import check_set

DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"CDL1": cd_l1, "CDL2": cd_l2, "EMD": emd}


def pairwise_distances(
    samples: Sequence[Tensor] | Tensor, references: Sequence[Tensor] | Tensor, distance: str = "CDL2"
) -> Tensor:
    """(S, R) distances of every sample cloud to every reference cloud: what coverage and MMD are read from.

    Args:
        samples, references: (S, N, D) and (R, M, D), or sequences of (N_i, D) tensors.
        distance: ``"CDL1"``, ``"CDL2"`` or ``"EMD"``, unscaled, as the functions of those names here.

    Float64 on the CPU. Raises LossValueError for an unknown distance and for unusable sets.
    """
    if distance not in DISTANCES:
        raise LossValueError(f"distance={distance!r} must be one of {', '.join(DISTANCES)}")
    rows, columns = check_set("samples", samples), check_set("references", references)
    measure = DISTANCES[distance]
    return torch.tensor([[float(measure(x.double(), y.double())) for y in columns] for x in rows], dtype=torch.float64)


def coverage(
    samples: Sequence[Tensor] | Tensor, references: Sequence[Tensor] | Tensor, distance: str = "CDL2"
) -> Tensor:
    """Share of the references that are the nearest one of at least one sample. 0 to 1, higher is better.

    Args: as :func:`pairwise_distances`. Of equally near references the first counts. 0-dim float64.
    """
    return coverage_of(pairwise_distances(samples, references, distance))


def minimum_matching_distance(
    samples: Sequence[Tensor] | Tensor, references: Sequence[Tensor] | Tensor, distance: str = "CDL2"
) -> Tensor:
    """Mean, over the references, of the distance to the nearest sample (MMD), in the unit of ``distance``.

    Lower is better. (Not the maximum mean discrepancy of the same letters.)

    Args: as :func:`pairwise_distances`. 0-dim float64. (Not the maximum mean discrepancy of the same letters.)
    """
    return mmd_of(pairwise_distances(samples, references, distance))


def coverage_of(distances: Tensor) -> Tensor:
    """Coverage from (S, R) distances."""
    return torch.tensor(len(distances.argmin(1).unique()) / distances.shape[1], dtype=torch.float64)


def mmd_of(distances: Tensor) -> Tensor:
    """Minimum matching distance from (S, R) distances."""
    return distances.amin(0).mean()
