"""Measures a checkpoint that a CSI2PointCloud training script saved, on the validation part of its data.

The host's own reader, network and standardisation are used, so its code runs. Only the metrics are ours.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from apml_plugin.checkpoints.reading import read_parts
from apml_plugin.errors import HostError
from apml_plugin.hosts.base import read_yaml
from apml_plugin.hosts.csi2pointcloud.reading import CsiHost, Script
from apml_plugin.hosts.project import Definition
from apml_plugin.metrics import METRICS, Metric, Pair

_CSI, _CLOUD = "input_wifi-csi", "input_lidar"
F_SCORE = 0.1
_MEASURES: dict[str, tuple[Metric, float]] = {
    "Chamfer (the host's)": (METRICS["CDL1"], 2.0),  # the sum of both means, not half of it
    "CD-L2": (METRICS["CDL2"], 1.0),
    "EMD": (METRICS["EMD"].in_reports_with(points=2**31), 1.0),  # as many points as the smaller cloud has
    f"F-score at {F_SCORE:g}": (METRICS["F-Score"].in_reports_with(threshold=F_SCORE), 1.0),
    "uniformity": (METRICS["Uniformity"], 1.0),
}
"""Name: metric and factor, in units of the standardised coordinates."""

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
    """Values of a checkpoint. values: name -> mean over batches, in units of the standardised coordinates."""

    checkpoint: Path
    epoch: int | None
    frames: int
    values: dict[str, float]


def evaluate(host: CsiHost, checkpoint: str | os.PathLike[str], config: str | os.PathLike[str]) -> Evaluation:
    """Measure `checkpoint` on the validation frames that `config` (with `dataset_root:`) selects.

    Chamfer is the host's: the sum of both mean distances to the nearest point, averaged over the batches as the host
    averages its validation loss. The reader draws points at random, with NumPy's seed set to `init_rand_seed`.

    Raises HostError for a config without a dataset, a checkpoint that does not fit the network, and a host whose script
    does not show how it reads its data; CheckpointError for a file that is not a checkpoint.
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
                pairs = [Pair.checked(x, y) for x, y in zip(pred, gt, strict=True)]
                for name, (metric, factor) in _MEASURES.items():
                    value = sum(metric.of_pair(pair, scale=1.0) for pair in pairs) / len(pairs)
                    sums[name] = sums.get(name, 0.0) + factor * value
                batches, frames = batches + 1, frames + len(gt)
    if not batches:
        raise HostError(f"{config} selects no validation frames below its dataset_root")
    return Evaluation(Path(checkpoint), saved.epoch, frames, {name: total / batches for name, total in sums.items()})


def read_checkpoint(path: str | os.PathLike[str]) -> Saved:
    """Read a checkpoint of the script, or the plain state dict that it saves at the end, without running code from it.

    Raises CheckpointError, naming the file, for anything else.
    """
    _, parts = read_parts(path)
    sizes = {name: int(parts.others[key]) for key, name in _SIZES.items() if isinstance(parts.others.get(key), int)}
    return Saved(dict(parts.weights), int(parts.epoch) if parts.epoch is not None else None, sizes)


def _standardised(batch: Tensor) -> Tensor:
    return (batch - batch.mean()) / batch.std()


def _model(script: Script, state: dict[str, Any], sizes: dict[str, int], checkpoint: Path) -> nn.Module:
    """The network with the checkpoint's sizes where it has them, else the script's."""
    if script.model_class is None:
        raise HostError(
            f"{script.file} does not build its network from a class of the project, so the checkpoint cannot be loaded"
        )
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
    """Numbers of encoder and decoder layers, counted from the weights: the checkpoint does not record them."""
    sizes = {}
    for part in ("encoder", "decoder"):
        numbers = {int(m[1]) for key in state if (m := re.match(rf"{part}\..*?layers\.(\d+)\.", key))}
        if numbers and f"num_{part}_layers" in script.model:
            sizes[f"num_{part}_layers"] = max(numbers) + 1
    return sizes


def _loader(host: CsiHost, script: Script, config: dict[str, Any], path: Path) -> Any:
    if script.make_dataset is None or script.make_loader is None:
        raise HostError(f"{script.file} does not show how its validation data is read; nothing was measured")
    root = config.get("dataset_root")
    if not isinstance(root, str):
        raise HostError(f"{path} has no dataset_root:, the folder that holds E01, E02 and so on; write it there")
    # As in training, a relative path is relative to the script's folder.
    folder = (host.root / script.file).parent / Path(root).expanduser()
    if not folder.is_dir():
        raise HostError(f"dataset_root: {root} of {path} is no folder, relative to {(host.root / script.file).parent}")
    _, validation = _imported(script.make_dataset)(str(folder), config, **script.dataset)
    beside = config.get(script.loader_key, {}) if script.loader_key else {}
    generator = torch.Generator().manual_seed(int(config.get("init_rand_seed", 0)))
    return _imported(script.make_loader)(validation, **script.loader, **beside, generator=generator)


def _imported(place: Definition) -> Any:
    return getattr(importlib.import_module(place.file.removesuffix(".py").replace("/", ".")), place.name)


@contextmanager
def _importable(root: Path, script: Script) -> Iterator[None]:
    """Puts the clone's root and its script's folder first on the path; removes them and their modules on exit."""
    paths, known = [str(root), str((root / script.file).parent)], set(sys.modules)
    sys.path[:0] = paths
    try:
        yield
    finally:
        for path in paths:
            sys.path.remove(path)
        inside, new = os.path.join(paths[0], ""), set(sys.modules) - known
        files = {name: str(getattr(sys.modules[name], "__file__", "")) for name in new}
        tops = {name.partition(".")[0] for name, file in files.items() if file.startswith(inside)}
        for name in new:  # packages without a file are recognised by their first name
            if name.partition(".")[0] in tops:
                del sys.modules[name]
