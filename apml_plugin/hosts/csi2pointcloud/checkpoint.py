"""Reading what a training script saved, without running code from the file."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import HostError

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
    """Read a checkpoint of the script, or the plain state dict it saves at the end.

    Weights-only; besides tensors only NumPy's scalars are let in (the script keeps its loss as one). Raises HostError
    for anything else.
    """
    try:
        # np.float64 pickles as a call of `scalar` with a dtype; neither runs anything of the file's.
        scalar: Any = np.float64(0).__reduce__()[0]
        torch.serialization.add_safe_globals([scalar, np.dtype, type(np.dtype(np.float64)), type(np.dtype(np.float32))])
        data = torch.load(Path(path), map_location="cpu", weights_only=True)
    except OSError as error:
        raise HostError(f"cannot read {path}: {error.strerror}") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise HostError(
            f"{path} is not a checkpoint that can be read safely: {' '.join(str(error).split())[:300]}"
        ) from None
    state = data.get("model_state_dict", data) if isinstance(data, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise HostError(f"{path} holds neither model_state_dict nor the weights themselves")
    sizes = {name: int(data[key]) for key, name in _SIZES.items() if isinstance(data.get(key), int)}
    epoch = data.get("epoch") if state is not data else None
    return Saved(dict(state), int(epoch) if epoch is not None else None, sizes)
