"""All metrics of one pair from one neighbour search in each direction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from apml_plugin.errors import LossArgumentError, LossValueError
from apml_plugin.functional import nearest_both_ways
from apml_plugin.metrics import uniformity
from apml_plugin.metrics.density import dcd_of
from apml_plugin.metrics.emd import sampled_emd
from apml_plugin.metrics.matched import weighted_quantile

DEFAULT = ("CD-L1", "CD-L2", "F", "DCD", "Hausdorff", "p50", "p95")
OPTIONAL = ("uniformity", "EMD")


@dataclass(frozen=True)
class Choice:
    """What is measured.

    metrics: of DEFAULT, OPTIONAL and ``pNN`` (the NN-th percentile of the nearest distances, each cloud weighing
    half). thresholds: one F-score for each, in the unit of the coordinates. scale: CD-L1, CD-L2, EMD, Hausdorff and
    percentiles are multiplied by it (1000 in PoinTr's tables). emd_points: the exact EMD is that of this many
    points of each cloud, drawn once with a fixed seed. normalize: both clouds are moved and scaled by the ground
    truth's bounding sphere first.
    """

    metrics: tuple[str, ...] = DEFAULT
    thresholds: tuple[float, ...] = (0.01,)
    scale: float = 1000.0
    emd_points: int = 1024
    normalize: bool = False

    def __post_init__(self) -> None:
        for name in self.metrics:
            if name not in DEFAULT + OPTIONAL and _percentile(name) is None:
                known = ", ".join([*DEFAULT, *OPTIONAL])
                raise LossArgumentError(f"metric {name!r} is none of {known} or another percentile such as p99")
        for threshold in self.thresholds:
            if not threshold > 0:
                raise LossValueError(f"threshold={threshold!r} must be a positive distance")
        if self.emd_points < 1:
            raise LossValueError(f"emd_points={self.emd_points!r} must be at least 1")

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the values that :func:`measure` gives, in order."""
        names: list[str] = []
        for name in self.metrics:
            names += [f"F@{threshold:g}" for threshold in self.thresholds] if name == "F" else [name]
        return tuple(names)


def higher_is_better(column: str) -> bool:
    return column.startswith("F@")


def measure(
    pred: NDArray[np.float64], gt: NDArray[np.float64], choice: Choice
) -> tuple[dict[str, float], NDArray[np.float64], NDArray[np.float64]]:
    """(column -> value, distance of each pred point to gt (N,) and of each gt point to pred (M,)) of one pair."""
    x, y = torch.from_numpy(pred), torch.from_numpy(gt)
    if choice.normalize:
        centre = (y.amin(0) + y.amax(0)) / 2
        radius = (y - centre).norm(dim=1).amax().clamp(min=1e-300)
        x, y = (x - centre) / radius, (y - centre) / radius
    near = nearest_both_ways(x[None], y[None])
    there, back = near.dist_xy[0].sqrt(), near.dist_yx[0].sqrt()
    values: dict[str, float] = {}
    for name in choice.metrics:
        if name == "F":
            for threshold in choice.thresholds:
                values[f"F@{threshold:g}"] = _f_score(there, back, threshold)
        elif name == "DCD":
            values[name] = dcd_of(near)
        elif name == "uniformity":
            values[name] = float(uniformity(x, y))
        else:
            values[name] = choice.scale * _distance(name, x, y, there, back, choice.emd_points)
    return values, there.numpy(), back.numpy()


def _distance(
    name: str, x: torch.Tensor, y: torch.Tensor, there: torch.Tensor, back: torch.Tensor, emd_points: int
) -> float:
    if name == "CD-L1":
        return float(there.mean() + back.mean()) / 2
    if name == "CD-L2":
        return float(there.square().mean() + back.square().mean())
    if name == "Hausdorff":
        return float(max(there.amax(), back.amax()))
    if name == "EMD":
        return float(sampled_emd(x, y, emd_points))
    percentile = _percentile(name)
    assert percentile is not None
    weights = torch.cat([torch.full_like(part, 0.5 / len(part)) for part in (there, back)])
    return float(weighted_quantile(torch.cat([there, back]), weights, percentile / 100))


def _f_score(there: torch.Tensor, back: torch.Tensor, threshold: float) -> float:
    precision, recall = float((there < threshold).double().mean()), float((back < threshold).double().mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _percentile(name: str) -> float | None:
    try:
        value = float(name[1:]) if name.startswith("p") else -1.0
    except ValueError:
        return None
    return value if 0 <= value <= 100 else None


def mean_of(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of every column."""
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
