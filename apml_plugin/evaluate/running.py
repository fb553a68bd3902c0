"""All pairs, one after the other: nothing is kept of a pair but its numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from apml_plugin.errors import ApmlError, CloudFileError
from apml_plugin.files.clouds import read_clouds
from apml_plugin.metrics import jsd
from apml_plugin.metrics.sets import coverage_of, mmd_of, pairwise_distances

from .measuring import Choice, mean_of, measure
from .pairing import Pairing


@dataclass
class Evaluation:
    """rows: (name, values). left_over: (file, why nothing was measured of it). sets: metrics of the whole set."""

    choice: Choice
    rows: list[tuple[str, dict[str, float]]] = field(default_factory=list)
    left_over: list[tuple[Path, str]] = field(default_factory=list)
    sets: dict[str, float] = field(default_factory=dict)

    @property
    def means(self) -> dict[str, float]:
        return mean_of([values for _, values in self.rows])


def evaluate(
    pairing: Pairing, choice: Choice, on_pair: Callable[[], None] = lambda: None, sets: bool = False
) -> Evaluation:
    """Measures every pair; what cannot be read or measured is listed with its reason and the others go on.

    sets: also JSD, coverage and minimum matching distance of all predictions against all ground truths (CD-L2; every
    pair of them is measured, and all clouds are kept in memory).
    Raises CloudFileError when nothing could be measured.
    """
    result = Evaluation(choice, left_over=list(pairing.left_over))
    kept: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    for name, pred_file, gt_file in pairing.pairs:
        for label, pred, gt in _clouds(name, pred_file, gt_file, result):
            try:
                values, _, _ = measure(pred, gt, choice)
            except ApmlError as error:
                result.left_over.append((pred_file, str(error)))
                continue
            result.rows.append((label, values))
            if sets:
                kept[0].append(torch.from_numpy(pred))
                kept[1].append(torch.from_numpy(gt))
        on_pair()
    if not result.rows:
        reasons = "; ".join(f"{file}: {why}" for file, why in result.left_over[:3])
        raise CloudFileError(f"none of {len(pairing.pairs)} pairs could be measured ({reasons})")
    if sets:
        result.sets = _sets(*kept, choice.scale)
    return result


def _clouds(
    name: str, pred_file: Path, gt_file: Path, result: Evaluation
) -> Iterator[tuple[str, NDArray[np.float64], NDArray[np.float64]]]:
    """The pairs that two files hold; a file that cannot be read is noted instead."""
    read = []
    for file in (pred_file, gt_file):
        try:
            read.append(read_clouds(file))
        except CloudFileError as error:
            result.left_over.append((file, str(error).removeprefix(f"{file}: ")))
    if len(read) < 2:
        return
    preds, gts = read
    if len(preds) != len(gts):
        result.left_over.append((pred_file, f"holds {len(preds)} clouds, {gt_file} holds {len(gts)}"))
        return
    for k, (pred, gt) in enumerate(zip(preds, gts, strict=True)):
        yield (name if len(preds) == 1 else f"{name}[{k}]"), pred, gt


def _sets(preds: list[torch.Tensor], gts: list[torch.Tensor], scale: float) -> dict[str, float]:
    distances = pairwise_distances(preds, gts)
    return {
        "JSD": float(jsd(preds, gts, bounds=None)),
        "coverage": float(coverage_of(distances)),
        "MMD-CD-L2": scale * float(mmd_of(distances)),
    }
