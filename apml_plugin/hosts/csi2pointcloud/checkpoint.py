"""What a training script saved: the weights, and the sizes of the network beside them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from ...checkpoints.layouts import take_apart
from ...checkpoints.reading import read
from ...errors import CheckpointError

_SIZES = {
    "embeddings": "embedding_dim",
    "head_num": "num_heads",
    "antennas_num": "num_antennas",
    "subcarriers_num": "num_subcarriers",
    "cloud_points_num": "num_points",
}
"""Keys of a checkpoint, and what the network's constructor calls them."""


@dataclass(frozen=True)
class Saved:
    """state: the weights. epoch: counted from 1, None in a plain state dict. sizes: arguments of the network."""

    state: dict[str, Any]
    epoch: int | None
    sizes: dict[str, int]


def read_checkpoint(path: str | os.PathLike[str]) -> Saved:
    """Read a checkpoint of the script, or the plain state dict it saves at the end, without running anything in it.

    Raises CheckpointError, naming the file, for anything else.
    """
    value = read(path).value
    try:
        parts = take_apart(value)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    sizes = {name: int(parts.others[key]) for key, name in _SIZES.items() if isinstance(parts.others.get(key), int)}
    return Saved(dict(parts.weights), int(parts.epoch) if parts.epoch is not None else None, sizes)
