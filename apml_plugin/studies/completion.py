"""Procedural shapes with partial views, as a data set: nothing to download."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from apml_plugin.errors import LossArgumentError, LossValueError
from apml_plugin.models.layers import positive
from apml_plugin.studies.shapes import FAMILIES, make_shape, visible_from

SPLITS = ("train", "test")


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
        self.split, self.size, self.seed = split, positive("size", size), seed
        self.num_partial, self.num_gt = positive("num_partial", num_partial), positive("num_gt", num_gt)
        self.families = tuple(families)
        self._made: dict[int, dict[str, Any]] = {}

    @property
    def metainfo(self) -> dict[str, Any]:
        """What MMEngine hands to metrics and visualizers."""
        return {"dataset_type": type(self).__name__, "classes": self.families}

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not -self.size <= index < self.size:
            raise IndexError(f"index {index} is out of range for {self.size} samples")
        index %= self.size
        if index not in self._made:  # a shape takes milliseconds, an epoch comes many times
            self._made[index] = self._make(index)
        return dict(self._made[index])

    def _make(self, index: int) -> dict[str, Any]:
        family = self.families[index % len(self.families)]
        # Even numbers are training shapes and odd ones test shapes, whatever their counts.
        number = 2 * (self.seed * 1_000_003 + index) + SPLITS.index(self.split)
        surface = make_shape(family, number)
        rng = np.random.default_rng([number, 1])
        seen = surface[visible_from(surface, rng.normal(size=3))]
        return {
            "inputs": _draw(seen, self.num_partial, rng),
            "gt": _draw(surface, self.num_gt, rng),
            "label": family,
        }


def _draw(points: np.ndarray, n: int, rng: np.random.Generator) -> torch.Tensor:
    return torch.from_numpy(points[rng.choice(len(points), n, replace=n > len(points))])
