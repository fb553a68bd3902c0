"""How many points a sample represents, and how far they are from it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from apml_plugin.arguments import one_of, whole
from apml_plugin.eager import eager
from apml_plugin.errors import LossArgumentError, LossValueError
from apml_plugin.losses.dpcc.outputs import LAYOUTS
from apml_plugin.matching import Lengths, check_clouds, compute_dtype
from apml_plugin.matching.dense import root
from apml_plugin.matching.search import nearest_index, neighbours_of, squared_distance


class DensityStats(NamedTuple):
    """For each sample, both (B, M)."""

    counts: Tensor
    """The number of points whose nearest sample it is."""
    mean_distances: Tensor
    """Sum of the distances of those of them that are among its k nearest points, over the count; 0 for a count of 0."""


@eager()
def density_stats(
    points: Tensor,
    samples: Tensor,
    k: int = 16,
    *,
    counts: Tensor | None = None,
    layout: str = "BN3",
    points_lengths: Lengths = None,
    samples_lengths: Lengths = None,
) -> DensityStats:
    """Density of a sampled cloud, as D-PCC's encoder and decoder measure it.

    Each point belongs to its nearest sample. Of a sample's points only those among its k nearest are summed, but all
    are counted, as published. A sample to which no point belongs (a duplicate of another) has mean distance 0; the
    published division gives NaN. No B x N x M tensor.

    Args:
        points: (B, N, D), the cloud before sampling (or after upsampling).
        samples: (B, M, D), the points kept (or those before upsampling).
        k: number of neighbours of a sample.
        counts: (B, M) positive numbers to divide by instead, such as a decoder's predicted ones: that is D-PCC's
            predicted mean distance, differentiable in them. They are then the ``counts`` of the result.
        layout: "BN3", or "B3N" for clouds (B, D, N).
        points_lengths, samples_lengths: (B,) numbers of valid points; padding gets 0 and 0.

    Returns:
        (counts, mean_distances); the distances are differentiable in points and samples, their derivative at 0 is 0.

    Raises:
        LossArgumentError, LossValueError: unusable clouds or numbers, NaN and Inf included.
    """
    k = whole("k", k)
    if k < 1:
        raise LossValueError(f"k={k!r} must be 1 or more; 16 is usual")
    if one_of("layout", layout, LAYOUTS) == "B3N":
        points, samples = _turned(points), _turned(samples)
    try:
        clouds = check_clouds(points, samples, points_lengths, samples_lengths)
    except (LossArgumentError, LossValueError) as error:
        text = str(error).replace("pred_lengths", "points_lengths").replace("gt_lengths", "samples_lengths")
        raise type(error)(f"density_stats, points (pred) and samples (gt): {text}") from None
    dtype = compute_dtype(points, samples)
    if counts is not None:
        _check_counts(counts, samples)
    pairs = []
    with torch.autocast(samples.device.type, enabled=False):
        for b in range(samples.shape[0]):
            x, y = (cloud.to(dtype) for cloud in clouds.pair(b))
            number, total = _pair(x, y, min(k, len(x)))
            pad = (0, samples.shape[1] - len(y))
            pairs.append([torch.nn.functional.pad(values, pad) for values in (number, total)])
        if not pairs:
            empty = samples.new_zeros(0, samples.shape[1], dtype=dtype)
            return DensityStats(empty, empty)
        number, total = (torch.stack(values) for values in zip(*pairs, strict=True))
        divisor = number if counts is None else counts.to(dtype)
        # A sample without points has the sum 0; any divisor but 0 gives mean distance 0.
        return DensityStats(divisor, total / divisor.where(divisor > 0, 1.0))


def _pair(points: Tensor, samples: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Counts and sums of distances (M,) for one pair."""
    if len(points) == 0 or len(samples) == 0:
        zeros = samples.sum(dim=1) * 0 + points.sum() * 0
        return zeros.detach(), zeros
    belongs = nearest_index(points.detach(), samples.detach())
    counts = torch.bincount(belongs, minlength=len(samples)).to(samples.dtype)
    near = _nearest_points(points.detach(), samples.detach(), k)
    mine = belongs[near] == torch.arange(len(samples), device=samples.device)[:, None]
    distances = root(squared_distance(points[near], samples[:, None]))
    return counts, distances.where(mine, 0.0).sum(dim=1)


def _turned(cloud: Tensor) -> Tensor:
    return cloud.transpose(1, 2) if isinstance(cloud, Tensor) and cloud.dim() == 3 else cloud


def _nearest_points(points: Tensor, samples: Tensor, k: int) -> Tensor:
    if points.device.type in ("cpu", "cuda"):
        return neighbours_of(points).nearest(samples, k)
    return neighbours_of(points.cpu()).nearest(samples.cpu(), k).to(points.device)


def _check_counts(counts: Tensor, samples: Tensor) -> None:
    if not isinstance(counts, Tensor) or tuple(counts.shape) != tuple(samples.shape[:2]):
        got = tuple(counts.shape) if isinstance(counts, Tensor) else type(counts).__name__
        raise LossValueError(f"counts must have shape {tuple(samples.shape[:2])}, one for each sample, got {got}")
    if bool((~torch.isfinite(counts) | (counts < 0)).any()):
        raise LossValueError("counts holds a negative number, NaN or Inf: it is divided by")
