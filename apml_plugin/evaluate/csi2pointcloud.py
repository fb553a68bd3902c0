"""Measuring a checkpoint that a CSI2PointCloud training script saved, on the validation part of its data.

The host's own reader, network and standardisation are used (so its code runs); only the measuring is ours.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import metrics
from ..checkpoints.layouts import take_apart
from ..checkpoints.reading import read
from ..errors import CheckpointError, HostError
from ..hosts.base import read_yaml
from ..hosts.csi2pointcloud.records import CsiHost, Script
from ..hosts.pointr.structure import Definition

_CSI, _CLOUD = "input_wifi-csi", "input_lidar"
F_SCORE = 0.1


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


@dataclass(frozen=True)
class Evaluation:
    """What a checkpoint reaches. values: name -> mean over batches, in units of the standardised coordinates."""

    checkpoint: Path
    epoch: int | None
    frames: int
    values: dict[str, float]


def evaluate(host: CsiHost, checkpoint: str | os.PathLike[str], config: str | os.PathLike[str]) -> Evaluation:
    """Measure `checkpoint` on the validation frames that `config` (with `dataset_root:`) selects.

    Chamfer is the host's: the mean distance there plus the mean distance back, averaged over the batches as the host
    averages its validation loss. The reader draws points at random; NumPy's seed is `init_rand_seed` here.

    Raises HostError for a config without a dataset, a checkpoint of another network's shape, and a host
    whose script does not show how it reads its data; CheckpointError for what is no checkpoint.
    """
    script = host.scripts[0]
    given, saved = read_yaml(Path(config)), read_checkpoint(checkpoint)
    with _importable(host.root, script):
        model = _model(script, saved.state, saved.sizes, Path(checkpoint))
        loader = _loader(host, script, given, Path(config))
        sums: dict[str, float] = {}
        batches = frames = 0
        seed = int(given.get("init_rand_seed", 0))
        np.random.seed(seed)
        torch.manual_seed(seed)
        with torch.no_grad():
            for batch in loader:
                csi, gt = _standardised(batch[_CSI]), _standardised(batch[_CLOUD])
                pred, _ = model(csi)
                for name, measure in MEASURES.items():
                    sums[name] = sums.get(name, 0.0) + float(measure(pred, gt).mean())
                batches, frames = batches + 1, frames + len(gt)
    if not batches:
        raise HostError(f"{config} selects no validation frames below its dataset_root")
    return Evaluation(Path(checkpoint), saved.epoch, frames, {name: total / batches for name, total in sums.items()})


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


def _chamfer(pred: Tensor, gt: Tensor) -> Tensor:
    return 2 * metrics.cd_l1(pred, gt)


def _emd(pred: Tensor, gt: Tensor) -> Tensor:
    """Of as many points as the smaller cloud has, drawn evenly from the larger."""
    count = min(pred.shape[1], gt.shape[1])
    return metrics.emd(*(cloud[:, torch.linspace(0, cloud.shape[1] - 1, count).long()] for cloud in (pred, gt)))


MEASURES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Chamfer (the host's)": _chamfer,
    "CD-L2": metrics.cd_l2,
    "EMD": _emd,
    f"F-score at {F_SCORE:g}": lambda pred, gt: metrics.f_score(pred, gt, F_SCORE),
    "uniformity": lambda pred, gt: metrics.uniformity(pred, gt),
}


def _standardised(batch: Tensor) -> Tensor:
    return (batch - batch.mean()) / batch.std()


def _model(script: Script, state: dict[str, Any], sizes: dict[str, int], checkpoint: Path) -> nn.Module:
    """The network with the checkpoint's sizes where it says them, else the script's."""
    if script.model_class is None:
        raise HostError(f"{script.file} builds its network by no class of the project, so there is none to load into")
    arguments = {**script.model, **_sizes_of(state, script), **{k: v for k, v in sizes.items() if k in script.model}}
    model: nn.Module = _imported(script.model_class)(**arguments)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        shown = ", ".join(f"{key}={value}" for key, value in arguments.items())
        raise HostError(
            f"{checkpoint} does not fit {script.model_class} with {shown}: {' '.join(str(error).split())[:300]}"
        ) from None
    return model.eval()


def _sizes_of(state: dict[str, Any], script: Script) -> dict[str, int]:
    """How many encoder and decoder layers the weights have: the checkpoint does not say it otherwise."""
    found = {}
    for part in ("encoder", "decoder"):
        numbers = {int(m[1]) for key in state if (m := re.match(rf"{part}\..*?layers\.(\d+)\.", key))}
        if numbers and f"num_{part}_layers" in script.model:
            found[f"num_{part}_layers"] = max(numbers) + 1
    return found


def _loader(host: CsiHost, script: Script, config: dict[str, Any], path: Path) -> Any:
    if script.make_dataset is None or script.make_loader is None:
        raise HostError(f"{script.file} does not show how its validation data is read; nothing was measured")
    root = config.get("dataset_root")
    if not isinstance(root, str):
        raise HostError(f"{path} has no dataset_root:, the folder that holds E01, E02 and so on; write it there")
    # As in training a relative path counts from the script's folder.
    folder = (host.root / script.file).parent / Path(root).expanduser()
    if not folder.is_dir():
        raise HostError(f"dataset_root: {root} of {path} is no folder, seen from {(host.root / script.file).parent}")
    _, validation = _imported(script.make_dataset)(str(folder), config, **script.dataset)
    beside = config.get(script.loader_key, {}) if script.loader_key else {}
    generator = torch.Generator().manual_seed(int(config.get("init_rand_seed", 0)))
    return _imported(script.make_loader)(validation, **script.loader, **beside, generator=generator)


def _imported(place: Definition) -> Any:
    return getattr(importlib.import_module(place.file.removesuffix(".py").replace("/", ".")), place.name)


@contextmanager
def _importable(root: Path, script: Script) -> Iterator[None]:
    """The clone's root and its script's folder first on the path, and gone again, with all that came from there."""
    paths, known = [str(root), str((root / script.file).parent)], set(sys.modules)
    sys.path[:0] = paths
    try:
        yield
    finally:
        for path in paths:
            sys.path.remove(path)
        inside, new = os.path.join(paths[0], ""), set(sys.modules) - known
        files = {name: str(getattr(sys.modules[name], "__file__", "")) for name in new}
        theirs = {name.partition(".")[0] for name, file in files.items() if file.startswith(inside)}
        for name in new:  # packages without a file of their own go by their first name
            if name.partition(".")[0] in theirs:
                del sys.modules[name]
