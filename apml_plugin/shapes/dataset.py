"""Generated shapes with partial views, as a PyTorch data set and as files in the layout of PCN's data set."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from apml_plugin.arguments import positive_whole
from apml_plugin.errors import LossArgumentError, LossValueError

from .families import FAMILIES, camera, make_shape, visible_from

SPLITS = ("train", "test")
VIEWS = 8
"""Partial clouds of a training shape in files; PCN's data set has as many."""


def shape_seed(index: int, split: str, seed: int = 0) -> int:
    """Even numbers are training shapes and odd ones test shapes, however many there are of either."""
    return 2 * (seed * 1_000_003 + index) + SPLITS.index(split)


def draw_points(points: NDArray[np.float32], n: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """(n, 3) of the points (N, 3); with repetition only where N is smaller than n."""
    return points[rng.choice(len(points), n, replace=n > len(points))]


class CompletionShapes(Dataset[dict[str, Any]]):
    """Chairs, tables, lamps, airplanes and mugs, each seen from one random side.

    A sample is a dict of ``inputs`` (num_partial, 3), ``gt`` (num_gt, 3), both float32 in ShapeNet's frame and
    size, and ``label``, the family. The same index gives the same sample on every machine and in every epoch.

    Args:
        split: ``"train"`` or ``"test"``; no shape is in both.
        size: number of samples; the families take turns.
        num_partial, num_gt: points of the partial and the complete cloud.
        families: which of ``FAMILIES``; all by default.
        seed: another seed, other shapes.

    Raises:
        LossArgumentError, LossValueError: an argument of the wrong type or out of range.
    """

    def __init__(
        self,
        split: str = "train",
        size: int = 256,
        num_partial: int = 512,
        num_gt: int = 2048,
        families: Sequence[str] = tuple(FAMILIES),
        seed: int = 0,
    ) -> None:
        if split not in SPLITS:
            raise LossValueError(f"split={split!r} must be one of {', '.join(SPLITS)}")
        if isinstance(families, str) or not families or not set(families) <= set(FAMILIES):
            raise LossValueError(f"families={families!r} must be a list of one or more of {', '.join(FAMILIES)}")
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise LossArgumentError(f"seed={seed!r} must be a whole number of at least 0")
        self.split, self.size, self.seed = split, positive_whole("size", size), seed
        self.num_partial, self.num_gt = positive_whole("num_partial", num_partial), positive_whole("num_gt", num_gt)
        self.families = tuple(families)
        self._made: dict[int, dict[str, Any]] = {}

    @property
    def metainfo(self) -> dict[str, Any]:
        """What MMEngine passes to metrics and visualizers."""
        return {"dataset_type": type(self).__name__, "classes": self.families}

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not -self.size <= index < self.size:
            raise IndexError(f"index {index} is out of range for {self.size} samples")
        index %= self.size
        if index not in self._made:  # making a shape takes milliseconds, too long for every epoch
            self._made[index] = self._make(index)
        return dict(self._made[index])

    def _make(self, index: int) -> dict[str, Any]:
        family = self.families[index % len(self.families)]
        number = shape_seed(index, self.split, self.seed)
        surface = make_shape(family, number)
        rng = np.random.default_rng([number, 1])
        seen = surface[visible_from(surface, rng.normal(size=3))]
        return {
            "inputs": torch.from_numpy(draw_points(seen, self.num_partial, rng)),
            "gt": torch.from_numpy(draw_points(surface, self.num_gt, rng)),
            "label": family,
        }


def write_dataset(
    root: Path, *, train: int, test: int, points: int, partial: int, seed: int = 0
) -> Iterator[tuple[int, int]]:
    """Writes ``root/PCN.json`` and ``root/<subset>/{partial,complete}/...`` as .npy files; yields (done, total).

    Args:
        train, test: shapes of each of the five families. Test shapes come from other seeds than training shapes.
        points: points of a complete cloud. partial: points of a partial one.

    Any PoinTr-style host reads the result as the PCN data set. Training shapes have 8 views, test shapes one. The
    index is written last, so a folder with an index is complete.
    """
    index, done = [], 0
    total = len(FAMILIES) * (train + test)
    for family, (taxonomy, _) in FAMILIES.items():
        entry: dict[str, Any] = {"taxonomy_id": taxonomy, "taxonomy_name": family, "train": [], "val": [], "test": []}
        for subset, count in (("train", train), ("test", test)):
            for number in range(count):
                model = f"{family}{number:04d}"
                _write_model(root / subset, taxonomy, model, family, (seed, subset, number), points, partial)
                entry[subset].append(model)
                done += 1
                yield done, total
        entry["val"] = entry["test"]
        index.append(entry)
    (root / "PCN.json").write_text(json.dumps(index, indent=1) + "\n")


def _write_model(
    root: Path, taxonomy: str, model: str, family: str, key: tuple[int, str, int], points: int, partial: int
) -> None:
    seed, subset, number = key
    number = shape_seed(number, subset, seed)
    surface = make_shape(family, number)
    rng = np.random.default_rng([number, int(taxonomy), 1])
    complete = root / "complete" / taxonomy / f"{model}.npy"
    complete.parent.mkdir(parents=True, exist_ok=True)
    np.save(complete, draw_points(surface, points, rng))
    folder = root / "partial" / taxonomy / model
    folder.mkdir(parents=True, exist_ok=True)
    for view in range(VIEWS if subset == "train" else 1):
        seen = surface[visible_from(surface, camera(rng))]
        np.save(folder / f"{view:02d}.npy", draw_points(seen, partial, rng))


def dataset_config(root: Path, points: int) -> dict[str, Any]:
    """The dataset part of a PoinTr-style YAML for a folder written by :func:`write_dataset`."""
    return {
        "NAME": "PCN",
        "CATEGORY_FILE_PATH": f"{root}/PCN.json",
        "N_POINTS": points,
        "N_RENDERINGS": VIEWS,
        "PARTIAL_POINTS_PATH": f"{root}/%s/partial/%s/%s/%02d.npy",
        "COMPLETE_POINTS_PATH": f"{root}/%s/complete/%s/%s.npy",
        "CARS": False,
    }
