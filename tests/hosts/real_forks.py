"""Real clones of PoinTr's forks and relatives in tests: generated data, small sizes, their own training scripts.

`from hosts.real_forks import ...` (`tests` is on the path). Every run is started by `apml run`, which brings the
stand-ins and the CPU mode, through a starter that seeds everything, shrinks a host's Python config (YAMLs are written
small), watches APML, and then runs the host's own script. Nothing of a host is changed; where its settings are code in
the training script itself, a copy of that script with other numbers is run.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hosts.real_pointr import ADAM, AIRPLANE, STEP, apml_run, pcn_data, shapenet_data

MEAN = "{NAME: APML, reduction: mean}"
POINTS = 2048
FAKES = Path(__file__).with_name("real_fakes.py")


@dataclass(frozen=True)
class Fork:
    """How one host is started and what it prints.

    prepare: (clone, data folder, learning rate) -> words of the command after the starter.
    folder: where its script runs. losses, validation: patterns whose groups are the numbers of the first iteration
    and of the validation (None: it has none). calls: two-sided Chamfers of one iteration. iterations: how many.
    shown: what of the values of the first iteration's calls stands in `losses`.
    needs: packages beyond ours that it uses and for which there is no stand-in.
    fakes: functions of `real_fakes` that stand in for what is neither installed nor of this plugin.
    dies: what its script ends with, by a mistake of its own, when all has been said.
    """

    prepare: Callable[[Path, Path, float], list[str]]
    losses: str
    calls: int
    validation: str | None
    folder: str = "."
    needs: tuple[str, ...] = ()
    settings: Callable[[Path, float], Mapping[str, Any]] = field(default=lambda data, lr: {})
    module: str = ""
    iterations: int = 3
    shown: Callable[[list[float]], list[float]] = field(default=lambda values: [value * 1000 for value in values])
    fakes: tuple[str, ...] = ()
    dies: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    def missing(self) -> list[str]:
        return [name for name in self.needs if importlib.util.find_spec(name) is None]


def data_for_forks(root: Path) -> Path:
    """PCN's layout as all of these hosts read it (val filled, test clouds without a view, too), and ShapeNet-55's."""
    pcn_data(root, points=POINTS, train=6, test=2, views=1)
    listed = json.loads((root / "PCN.json").read_text())
    listed[0]["val"] = listed[0]["test"]
    (root / "PCN.json").write_text(json.dumps(listed))
    for cloud in sorted((root / "test" / "partial" / AIRPLANE).glob("*/00.npy")):
        shutil.copy(cloud, cloud.parent.with_suffix(".npy"))
    shutil.copytree(root / "test", root / "val")
    shapenet_data(root / "shapenet", train=6, test=2)
    return root


@dataclass
class Run:
    """One run: what the host printed, the numbers in it, what the starter saw of APML, and file -> text with lines."""

    output: str
    losses: list[float]
    validation: list[float]
    spied: dict[str, Any]
    executed: dict[str, str]

    @property
    def announced(self) -> list[str]:
        return [line for line in self.output.splitlines() if "[apml]" in line and " trains with " in line]


def run_fork(fork: Fork, clone: Path, data: Path, rate: float, loss: str = "", options: Sequence[str] = ()) -> Run:
    """The host's own script, with `--loss` if one is given and further options of `apml run`. Traces of the run go."""
    folder = clone / fork.folder
    starter, settings = folder / "apml_test_starter.py", data / "settings.json"
    known = set(every_byte(clone))
    starter.write_text(_STARTER)
    try:
        words = fork.prepare(clone, data, rate)
        said = {"module": fork.module, "values": fork.settings(data, rate), "fakes": [str(FAKES), *fork.fakes]}
        settings.write_text(json.dumps(said))
        told = [*options, *(["--loss", loss] if loss else [])]
        output = apml_run(
            folder, [*told, starter.name, str(settings), *words], fails=bool(fork.dies), more=fork.environment
        )
        assert fork.dies in output
    finally:
        for left in set(every_byte(clone)) - known:
            (clone / left).unlink()
    spied = json.loads(re.findall(r"^SPIED (.*)$", output, re.M)[-1])
    return Run(output, _numbers(fork.losses, output), _numbers(fork.validation, output), spied, spied.pop("executed"))


def status(clone: Path) -> list[str]:
    """What git says of the clone, untracked files, too; empty for a clean one."""
    command = ["git", "status", "--porcelain"]
    return subprocess.run(command, cwd=clone, text=True, capture_output=True, check=True).stdout.splitlines()


def every_byte(clone: Path) -> dict[str, bytes]:
    """The bytes of every file, apart from git's own and Python's caches."""
    return {
        path.relative_to(clone).as_posix(): path.read_bytes()
        for path in clone.rglob("*")
        if path.is_file() and not {".git", "__pycache__"} & set(path.relative_to(clone).parts)
    }


def _numbers(pattern: str | None, output: str) -> list[float]:
    if pattern is None:
        return []
    found = re.search(pattern, output)
    assert found, output[-4000:]
    return [float(number) for text in found.groups() for number in re.findall(r"-?\d+\.\d+(?:e-?\d+)?", text)]


def _write(path: Path, value: Mapping[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(dict(value), sort_keys=False))
    return path


def _rate(settings: Mapping[str, Any], rate: float) -> dict[str, Any]:
    return {"type": settings["type"], "kwargs": {**settings["kwargs"], "lr": rate}}


def _subsets(dataset: Path, **others: Any) -> dict[str, Any]:
    names = {"train": "train", "val": "test", "test": "test"}
    return {key: {"_base_": str(dataset), "others": {"subset": name, **others}} for key, name in names.items()}


def _anchorformer(clone: Path, data: Path, rate: float) -> list[str]:
    weights = ("sparse_loss_weight", "dense_loss_weight", "sparse_penalty_weight", "dense_penalty_weight")
    config = {
        "optimizer": _rate(ADAM, rate),
        "scheduler": STEP,
        "dataset": _subsets(data / "dataset.yaml"),
        "model": {
            "NAME": "AnchorFormer",
            "num_pred": 576,
            "num_query": 144,  # 128 plus 16 for each encoder block
            "knn_layer": 0,
            "trans_dim": 48,
            "num_encoder_blk": 1,
            "num_decoder_blk": 1,
            "sparse_expansion_lambda": 0.5,
            "dense_expansion_lambda": 1.2,
        },
        "loss": dict(zip(weights, (1.0, 1.0, 0.1, 0.05), strict=True)),
        "total_bs": 2,
        "step_per_update": 1,
        "max_epoch": 1,  # it runs two, and validates after the second
        "consider_metric": "CDL1",
    }
    path = _write(data / "configs" / "AnchorFormer.yaml", config)
    more = ["--exp_name", "apml_test", "--num_workers", "0", "--val_freq", "1", "--seed", "7"]
    return ["main.py", "--config", str(path), *more]


def _point_mae(clone: Path, data: Path, rate: float) -> list[str]:
    config = {
        "optimizer": {"type": "AdamW", "kwargs": {"lr": rate, "weight_decay": 0.05}},
        "scheduler": {"type": "CosLR", "kwargs": {"epochs": 300, "initial_epochs": 10}},
        "dataset": _subsets(data / "shapenet" / "dataset.yaml", npoints=256),
        "model": {
            "NAME": "Point_MAE",
            "group_size": 32,
            "num_group": 16,
            "loss": "cdl2",
            "transformer_config": {
                "mask_ratio": 0.6,
                "mask_type": "rand",
                "trans_dim": 48,
                "encoder_dims": 48,
                "depth": 1,
                "drop_path_rate": 0.1,
                "num_heads": 6,
                "decoder_depth": 1,
                "decoder_num_heads": 6,
            },
        },
        "npoints": 256,
        "total_bs": 2,
        "step_per_update": 1,
        "max_epoch": 0,
    }
    path = _write(data / "configs" / "pretrain.yaml", config)
    return ["main.py", "--config", str(path), "--exp_name", "apml_test", "--num_workers", "0", "--seed", "7"]


def _snowflakenet(clone: Path, data: Path, rate: float) -> list[str]:
    common = {"gpu": [0], "batch_size": 2, "num_workers": 0, "loss_func": "cd_l1"}
    optimizer = {"type": "Adam", "kwargs": {"lr": rate, "weight_decay": 0, "betas": [0.9, 0.999]}}
    training = {
        "optimizer": optimizer,
        "scheduler": {"type": "StepLR", "kwargs": {"decay_step": 50, "gamma": 0.5}},
        "seed": 7,
        "epochs": 2,  # it counts from one up to this, exclusive
        "save_freq": 25,
        "out_path": str(data / "out"),
        "resume": False,
        "model_path": "",
        **common,
    }
    config = {
        "dataset": {
            "name": "PCN",
            "category_file_path": str(data / "PCN.json"),
            "partial_points_path": f"{data}/%s/partial/%s/%s/%02d.npy",
            "complete_points_path": f"{data}/%s/complete/%s/%s.npy",
            "n_points": POINTS,
            "n_renderings": 1,
        },
        "model": {"dim_feat": 64, "up_factors": [1, 1, 2], "num_pc": 128, "num_p0": 256, "bounding": True, "radius": 1},
        "train": training,
        "test": {"split": "test", "model_path": "", **common},
    }
    return ["train.py", "--config", str(_write(data / "configs" / "snowflake.yaml", config))]


def _seedformer(clone: Path, data: Path, rate: float) -> list[str]:
    """Its settings stand in the training script: that file again, with other values behind the same names."""
    text = (clone / "codes" / "train_pcn.py").read_text()
    for name, value in {
        "DATASETS.SHAPENET.CATEGORY_FILE_PATH": str(data / "PCN.json"),
        "DATASETS.SHAPENET.N_RENDERINGS": 1,
        "DATASETS.SHAPENET.PARTIAL_POINTS_PATH": f"{data}/%s/partial/%s/%s/%02d.npy",
        "DATASETS.SHAPENET.COMPLETE_POINTS_PATH": f"{data}/%s/complete/%s/%s.npy",
        "CONST.NUM_WORKERS": 0,
        "DIR.OUT_PATH": str(data / "out"),
        "NETWORK.UPSAMPLE_FACTORS": [1, 1, 2],
        "TRAIN.BATCH_SIZE": 2,
        "TRAIN.N_EPOCHS": 1,
        "TRAIN.LEARNING_RATE": rate,
        "TRAIN.WARMUP_EPOCHS": 1,
    }.items():
        text, count = re.subn(rf"(__C\.{re.escape(name)}\s*=).*", lambda m, v=value: f"{m[1]} {v!r}", text)
        assert count == 1, name
    (clone / "codes" / "train_pcn_small.py").write_text(text)
    return ["train_pcn_small.py"]


def _grnet_settings(data: Path, rate: float) -> dict[str, Any]:
    """What is put into its `cfg`."""
    return {
        "DATASETS.SHAPENET.CATEGORY_FILE_PATH": str(data / "PCN.json"),
        "DATASETS.SHAPENET.N_RENDERINGS": 1,
        "DATASETS.SHAPENET.N_POINTS": POINTS,
        "DATASETS.SHAPENET.PARTIAL_POINTS_PATH": f"{data}/%s/partial/%s/%s/%02d.npy",
        "DATASETS.SHAPENET.COMPLETE_POINTS_PATH": f"{data}/%s/complete/%s/%s.npy",
        "DATASET.TRAIN_DATASET": "ShapeNet",
        "DATASET.TEST_DATASET": "ShapeNet",
        "CONST.NUM_WORKERS": 0,
        "DIR.OUT_PATH": str(data / "out"),
        "TRAIN.BATCH_SIZE": 2,
        "TRAIN.N_EPOCHS": 1,
        "TRAIN.LEARNING_RATE": rate,
    }


FORKS: dict[str, Fork] = {
    "AnchorFormer": Fork(
        _anchorformer,
        losses=r"\[Epoch 0/1\]\[Batch 1/3\].*Losses = \['([\d.]+)', '([\d.]+)'",
        calls=2,
        iterations=6,
        validation=r"\[Validation\] EPOCH: 1  Metrics = (\[.*\])",
    ),
    "Point-MAE": Fork(
        _point_mae,
        losses=r"\[Epoch 0/0\]\[Batch 1/3\].*Losses = \['([\d.]+)'",
        calls=1,
        validation=None,
        needs=("sklearn",),
    ),
    "SnowflakeNet": Fork(
        _snowflakenet,
        losses=r"Batch 1/3\].*loss=\['[\d.]+', '([\d.]+)', '([\d.]+)', '([\d.]+)', '([\d.]+)'\]",
        calls=4,
        validation=r"\nEpoch\s+1\t([\d.\t]+)",
        folder="completion",
        needs=("transforms3d", "h5py"),
    ),
    "seedformer": Fork(
        _seedformer,
        losses=r"\[Epoch 1/1\] .*Losses = \['([\d.]+)', '([\d.]+)', '([\d.]+)', '([\d.]+)'",
        calls=12,  # of an epoch, whose means it prints
        iterations=1,
        shown=lambda values: [sum(values[i::4]) / 3 * 1000 for i in range(4)],
        validation=r"Testing scores = ([\d.]+)",
        folder="codes",
        needs=("transforms3d", "h5py", "cv2"),
    ),
    "GRNet": Fork(
        lambda clone, data, rate: ["runner.py"],
        losses=r"\[Epoch 1/1\]\[Batch 1/3\].*Losses = (\[.*\])",
        calls=2,
        validation=r"\nOverall\s+([\d.\t]+)",
        needs=("transforms3d", "h5py", "cv2", "pyexr"),
        settings=_grnet_settings,
        module="config",
    ),
}
"""Folder name of a clone -> how it is run."""

_STARTER = """
import importlib
import json
import os
import random
import runpy
import sys

import numpy as np
import torch

import apml_plugin
from apml_plugin.functional import apml_loss

from apml_plugin.patching import memory

APML, forward = apml_plugin.APML, apml_plugin.APML.forward
seen = {"values": [], "without_gradient": 0, "worst": 0.0, "swapped": 0, "executed": {}}


def watched(self, pred, gt, *args, **kwargs):
    value = forward(self, pred, gt, *args, **kwargs)
    if not (torch.is_grad_enabled() and (pred.requires_grad or gt.requires_grad)):
        seen["without_gradient"] += 1
    seen["swapped"] += not pred.requires_grad
    again = apml_loss(pred.detach(), gt.detach(), reduction=self.reduction)
    seen["worst"] = max(seen["worst"], float(((again - value) / value).abs().max()))
    seen["values"].append(float(value.mean()))
    return value


def noted(data, edits, file, compiled=memory.compiled, text=memory.text):
    def kept(data, edits):
        seen["executed"][os.path.realpath(file)] = text(data, edits).decode()
        return text(data, edits)

    memory.text = kept
    return compiled(data, edits, file)


APML.forward, memory.compiled = watched, noted
with open(sys.argv[1]) as stream:
    settings = json.load(stream)
file, *fakes = settings["fakes"]
if fakes:
    namespace = runpy.run_path(file)
    for name in fakes:
        namespace[name]()
for seed in (random.seed, np.random.seed, torch.manual_seed):
    seed(7)
for name, value in settings["values"].items():
    part = importlib.import_module(settings["module"]).cfg
    *path, last = name.split(".")
    for key in path:
        part = part[key]
    assert last in part, name
    part[last] = value
del sys.argv[:2]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print("\\nSPIED " + json.dumps(seen))
"""
