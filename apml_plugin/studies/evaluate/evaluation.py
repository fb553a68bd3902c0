"""Pairs files of predictions with files of ground truths, and measures every pair."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from apml_plugin.errors import ApmlError, CloudFileError, LossArgumentError, LossValueError
from apml_plugin.files.clouds import READERS, read_clouds
from apml_plugin.metrics import METRICS, Metric, Pair, find
from apml_plugin.metrics.table import measure_sets

DEFAULT = ("CD-L1", "CD-L2", "F", "DCD", "Hausdorff", "p50", "p95")
OPTIONAL = ("uniformity", "EMD")


@dataclass(frozen=True)
class Choice:
    """What is measured.

    metrics: of DEFAULT, OPTIONAL and ``pNN`` (the NN-th percentile of the nearest distances, each cloud with half the
    weight). thresholds: an F-score for each, in the unit of the coordinates. scale: factor of all metrics that are
    lengths (1000 in PoinTr's tables). emd_points: the exact EMD compares this many points of each cloud, always the
    same ones. normalize: both clouds are first moved and scaled by the bounding sphere of the ground truth.
    """

    metrics: tuple[str, ...] = DEFAULT
    thresholds: tuple[float, ...] = (0.01,)
    scale: float = 1000.0
    emd_points: int = 1024
    normalize: bool = False

    def __post_init__(self) -> None:
        for threshold in self.thresholds:
            if not threshold > 0:
                raise LossValueError(f"threshold={threshold!r} must be a positive distance")
        if self.emd_points < 1:
            raise LossValueError(f"emd_points={self.emd_points!r} must be at least 1")
        assert self.measured  # raises for an unknown metric

    @property
    def measured(self) -> list[Metric]:
        """The metrics with their arguments, in the order of the columns; their headings are unique."""
        metrics: list[Metric] = []
        for name in self.metrics:
            try:
                metric = find(name)
            except LossArgumentError:
                metric = None
            if metric is None or metric.of_sets:
                known = ", ".join([*DEFAULT, *OPTIONAL])
                raise LossArgumentError(f"metric {name!r} is none of {known} or another percentile such as p99")
            if metric.name == "F-Score":
                metrics += [metric.in_reports_with(f"F@{t:g}", threshold=t) for t in self.thresholds]
            else:
                metrics.append(metric.in_reports_with(points=self.emd_points) if metric.name == "EMD" else metric)
        return metrics

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the values that :func:`measure` gives, in order."""
        return tuple(metric.heading for metric in self.measured)


@dataclass(frozen=True)
class Pairing:
    """pairs: (name, file of the prediction, file of the ground truth). left_over: (file, why it has no pair)."""

    pairs: tuple[tuple[str, Path, Path], ...]
    left_over: tuple[tuple[Path, str], ...]


@dataclass
class Evaluation:
    """rows: (name, column -> value). left_over: (file, why it was not measured). sets: metrics of the whole sets."""

    choice: Choice
    rows: list[tuple[str, dict[str, float]]] = field(default_factory=list)
    left_over: list[tuple[Path, str]] = field(default_factory=list)
    sets: dict[str, float] = field(default_factory=dict)

    @property
    def means(self) -> dict[str, float]:
        return {name: float(np.mean([row[name] for _, row in self.rows])) for name in self.choice.columns}

    @property
    def best_first(self) -> list[tuple[str, dict[str, float]]]:
        """The rows from best to worst by the first column."""
        first = self.choice.measured[0]
        return sorted(self.rows, key=lambda row: row[1][first.heading], reverse=first.higher_is_better)


def pair_up(pred: str | os.PathLike[str], gt: str | os.PathLike[str]) -> Pairing:
    """Two files make one pair. Files of two folders pair by their path in the folder without the suffix.

    Raises CloudFileError if one is a file and the other a folder, if either does not exist, or if nothing pairs.
    """
    left, right = Path(pred).expanduser(), Path(gt).expanduser()
    for name, path in (("the prediction", left), ("the ground truth", right)):
        if not path.exists():
            raise CloudFileError(f"{name}, {path}, does not exist")
    if left.is_dir() != right.is_dir():
        raise CloudFileError(f"{left} and {right}: give two files or two folders, not one of each")
    if not left.is_dir():
        return Pairing(((left.stem, left, right),), ())
    over: list[tuple[Path, str]] = []
    preds, gts = _files(left, over), _files(right, over)
    pairs = tuple((name, preds[name], gts[name]) for name in sorted(preds.keys() & gts.keys()))
    over += [(preds[name], f"no file {name}.* in {right}") for name in sorted(preds.keys() - gts.keys())]
    over += [(gts[name], f"no file {name}.* in {left}") for name in sorted(gts.keys() - preds.keys())]
    if not pairs:
        raise CloudFileError(
            f"no file of {left} has the name of one of {right} ({len(preds)} and {len(gts)} files of kinds "
            f"{', '.join(READERS)}); names must be equal, suffixes need not"
        )
    return Pairing(pairs, tuple(over))


def _files(folder: Path, over: list[tuple[Path, str]]) -> dict[str, Path]:
    """Name: file, of the readable files in ``folder``; the others are added to ``over``."""
    files: dict[str, Path] = {}
    for file in sorted(folder.rglob("*")):
        inside = file.relative_to(folder)
        if not file.is_file() or any(part.startswith(".") for part in inside.parts):
            continue
        name = inside.with_suffix("").as_posix()
        if file.suffix.lower() not in READERS:
            over.append((file, "a kind of file that is not read"))
        elif name in files:
            over.append((file, f"{files[name].name} of the same name was taken"))
        else:
            files[name] = file
    return files


def pair_of(pred: NDArray[np.float64], gt: NDArray[np.float64], normalize: bool) -> Pair:
    """The pair of clouds that is measured. Raises LossValueError for unusable clouds."""
    x, y = torch.from_numpy(pred), torch.from_numpy(gt)
    if normalize and len(y):
        centre = (y.amin(0) + y.amax(0)) / 2
        radius = (y - centre).norm(dim=1).amax().clamp(min=1e-300)
        x, y = (x - centre) / radius, (y - centre) / radius
    return Pair.checked(x, y)


def measure(pair: Pair, choice: Choice) -> dict[str, float]:
    """Column: value, of one pair."""
    return {metric.heading: metric.of_pair(pair, choice.scale) for metric in choice.measured}


def evaluate(
    pairing: Pairing, choice: Choice, on_pair: Callable[[], None] = lambda: None, sets: bool = False
) -> Evaluation:
    """Measures every pair. Files that cannot be read or measured are listed with the reason.

    sets: also JSD, coverage and minimum matching distance (of CD-L2) of all predictions against all ground truths,
    which measures every pair of them and keeps all clouds in memory. Otherwise only numbers are kept.
    Raises CloudFileError when nothing could be measured.
    """
    result = Evaluation(choice, left_over=list(pairing.left_over))
    preds: list[Tensor] = []
    gts: list[Tensor] = []
    for name, pred_file, gt_file in pairing.pairs:
        for label, pred, gt in _clouds(name, pred_file, gt_file, result.left_over):
            try:
                values = measure(pair_of(pred, gt, choice.normalize), choice)
            except ApmlError as error:
                result.left_over.append((pred_file, str(error)))
                continue
            result.rows.append((label, values))
            if sets:
                preds.append(torch.from_numpy(pred))
                gts.append(torch.from_numpy(gt))
        on_pair()
    if not result.rows:
        reasons = "; ".join(f"{file}: {why}" for file, why in result.left_over[:3])
        raise CloudFileError(f"no pair (of {len(pairing.pairs)}) could be measured ({reasons})")
    if sets:
        of_sets = [metric for metric in METRICS.values() if metric.of_sets]
        values = measure_sets(of_sets, preds, gts, choice.scale)
        result.sets = {metric.heading: values[metric.name] for metric in of_sets}
    return result


def read_pair(pairing: Pairing, label: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The two clouds of a row of the evaluation, read again from their files."""
    files = {name: (pred, gt) for name, pred, gt in pairing.pairs}
    name, _, index = label.rpartition("[")
    k = 0 if label in files else int(index[:-1])
    pred_file, gt_file = files.get(label) or files[name]
    return read_clouds(pred_file)[k], read_clouds(gt_file)[k]


def _clouds(
    name: str, pred_file: Path, gt_file: Path, left_over: list[tuple[Path, str]]
) -> Iterator[tuple[str, NDArray[np.float64], NDArray[np.float64]]]:
    """(label, pred, gt) of the pairs that two files hold; a file that cannot be read is added to ``left_over``."""
    read: list[Sequence[NDArray[np.float64]]] = []
    for file in (pred_file, gt_file):
        try:
            read.append(read_clouds(file))
        except CloudFileError as error:
            left_over.append((file, str(error).removeprefix(f"{file}: ")))
    if len(read) < 2:
        return
    preds, gts = read
    if len(preds) != len(gts):
        left_over.append((pred_file, f"holds {len(preds)} clouds, {gt_file} holds {len(gts)}"))
        return
    for k, (pred, gt) in enumerate(zip(preds, gts, strict=True)):
        yield (name if len(preds) == 1 else f"{name}[{k}]"), pred, gt
