"""Writes generated shapes in the format of PCN's dataset, as .npy files: any PoinTr-style host reads them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from apml_plugin.studies.shapes import FAMILIES, camera, make_shape, visible_from

VIEWS = 8
"""Partial clouds of a training shape: PCN's number of renderings."""


def write_dataset(
    root: Path, *, train: int, test: int, points: int, partial: int, seed: int = 0
) -> Iterator[tuple[int, int]]:
    """Writes ``root/PCN.json`` and ``root/<subset>/{partial,complete}/...``; yields (done, total) as it goes.

    Args:
        train, test: shapes of each of the five families. Test shapes come from other seeds than training shapes.
        points: points of a complete cloud. partial: points of a partial one.

    Training shapes have 8 views, test shapes one. The index is written last, so a folder with an index is whole.
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
    shape_seed = 2 * (seed * 1_000_003 + number) + (subset == "test")
    surface = make_shape(family, shape_seed)
    rng = np.random.default_rng([shape_seed, int(taxonomy), 1])
    complete = root / "complete" / taxonomy / f"{model}.npy"
    complete.parent.mkdir(parents=True, exist_ok=True)
    np.save(complete, surface[rng.choice(len(surface), points, replace=points > len(surface))])
    folder = root / "partial" / taxonomy / model
    folder.mkdir(parents=True, exist_ok=True)
    for view in range(VIEWS if subset == "train" else 1):
        seen = surface[visible_from(surface, camera(rng))]
        np.save(folder / f"{view:02d}.npy", seen[rng.choice(len(seen), partial, replace=partial > len(seen))])


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
