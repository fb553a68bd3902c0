"""Writing a checkpoint that PyTorch loads by default."""

from __future__ import annotations

import argparse
import json
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import torch

from ..errors import CheckpointError
from ..files.writing import check_target, write_whole
from .layouts import LAYOUTS, RAW, Checkpoint, with_prefix, without_prefix
from .placeholders import Placeholder
from .report import plain

TORCH, SAFETENSORS = "torch", "safetensors"
PREFIXES = ("keep", "strip", "add")
_DROP = object()


def convert(
    found: Checkpoint,
    out: str | os.PathLike[str],
    form: str = TORCH,
    layout: str | None = None,
    prefix: str | None = None,
    force: bool = False,
) -> list[str]:
    """Writes ``found`` to ``out``; returns a line for each thing that was left out.

    Args:
        form: TORCH, a file that `torch.load` reads by default, or SAFETENSORS, weights alone.
        layout: a key of LAYOUTS or RAW; by default the file's own.
        prefix: `module.` before keys: keep (default for TORCH), strip (default for SAFETENSORS) or add it.
        force: replace an existing file.

    Raises CheckpointError, and leaves nothing behind, if ``out`` exists already, its folder does not, the disk is full,
    or safetensors is not installed or cannot hold these weights.
    """
    try:
        target = check_target(out, force)
    except OSError as error:
        raise CheckpointError(f"{out}: {error.strerror}") from None
    prefix = prefix or ("strip" if form == SAFETENSORS else "keep")
    weights = {"keep": lambda w: w, "strip": without_prefix, "add": with_prefix}[prefix](found.weights)
    if form == SAFETENSORS:
        data, left = _safetensors(found, weights)
        _write(target, lambda file: file.write(data), force)
        return left
    value, left = _laid_out(found, weights, layout or found.layout)
    _write(target, lambda file: torch.save(value, file), force, _loads)
    return left


def _loads(path: str) -> None:
    torch.load(path, map_location="cpu", weights_only=True)


def _laid_out(found: Checkpoint, weights: Mapping[str, torch.Tensor], layout: str) -> tuple[Any, list[str]]:
    if layout == RAW:
        return weights, [f"{key}: a raw state dict holds weights alone" for key in found.others]
    others = found.others
    if layout != found.layout and found.layout in LAYOUTS:
        others = dict(others)
        for old, new in zip(LAYOUTS[found.layout], LAYOUTS[layout], strict=True):
            if old in others and new not in others:
                others[new] = others.pop(old)
    value: dict[str, Any] = {layout: weights}
    left = []
    for key, item in others.items():
        if key in LAYOUTS:  # a second network, which the host would take for the first
            left.append(f"{key}: only the weights under {found.layout!r} are converted")
            continue
        cleaned = loadable(item)
        if cleaned is _DROP:
            left.append(f"{key}: {plain(item)}")
        else:
            value[key] = cleaned
    return value, left


def loadable(value: Any) -> Any:
    """``value`` in types that `torch.load` reads by default: NumPy values become numbers and tensors."""
    try:
        return _loadable(value, {})
    except RecursionError:
        raise CheckpointError("is nested too deeply, or within itself") from None


def _loadable(value: Any, done: dict[int, Any]) -> Any:
    if id(value) not in done:  # shared values are converted once: a small file can refer to a list a billion times
        done[id(value)] = (value, _made_loadable(value, done))
    return done[id(value)][1]


def _made_loadable(value: Any, done: dict[int, Any]) -> Any:
    import numpy as np

    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return _from_array(value)
    if isinstance(value, argparse.Namespace):
        value = vars(value)
    if type(value) is OrderedDict and vars(value) and "_metadata" not in vars(value):
        value = dict(dict.items(value))  # an EasyDict, whose attributes repeat its items
    if type(value) in (dict, OrderedDict):
        pairs = [(_loadable(key, done), _loadable(item, done)) for key, item in dict.items(value)]
        result = type(value)((key, item) for key, item in pairs if key is not _DROP and item is not _DROP)
        if isinstance(result, OrderedDict):
            vars(result).update(vars(value))
        return result
    if type(value) in (list, tuple, set):
        items = [_loadable(item, done) for item in value]
        return type(value)(item for item in items if item is not _DROP)
    return _DROP if isinstance(value, Placeholder) else value


def _from_array(value: Any) -> Any:
    if value.dtype.kind in "US":
        return value.tolist()
    try:
        return torch.from_numpy(value.astype(value.dtype.newbyteorder("="), order="C"))
    except TypeError:  # no tensor has this type of number
        return value.tolist()


def _safetensors(found: Checkpoint, weights: Mapping[str, torch.Tensor]) -> tuple[bytes, list[str]]:
    try:
        from safetensors.torch import save
    except ImportError:
        raise CheckpointError("--format safetensors needs one more package: pip install safetensors") from None
    tensors = {}
    for key, tensor in weights.items():
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
            raise CheckpointError(f"{key} is {tensor.layout} on {tensor.device}, which safetensors cannot hold")
        if tensor.numel() * tensor.element_size() > max(tensor.untyped_storage().nbytes(), 1):
            raise CheckpointError(f"{key} is a view that repeats its numbers; safetensors would write them all out")
        tensors[key] = tensor.detach().clone(memory_format=torch.contiguous_format)  # it rejects shared memory
    facts = {"epoch": found.epoch, "metrics": found.metrics, "best_metrics": found.best}
    notes = {key: json.dumps(plain(value)) for key, value in facts.items() if value is not None}
    try:
        data = save(tensors, {"format": "pt", **notes})
    except Exception as error:
        raise CheckpointError(f"safetensors cannot hold these weights ({' '.join(str(error).split())})") from None
    kept = {"epoch", "epoch_index", "metrics", "best_metrics", "best_metric"}
    return data, [f"{key}: safetensors holds weights alone" for key in found.others if key not in kept]


def _write(target: Path, write: Callable[[IO[bytes]], Any], force: bool, check: Callable[[str], Any] = str) -> None:
    try:
        write_whole(target, write, force, check)
    except FileExistsError as error:
        raise CheckpointError(f"{target}: {error.strerror}") from None
    except CheckpointError:
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise CheckpointError(f"{target}: could not be written ({reason}); nothing was left behind") from None
