"""A real PoinTr clone in tests: generated data in its layouts, YAMLs of small sizes, its own main.py, what it saved.

`from hosts.real_pointr import ...` (`tests` is on the path). A test that uses it is marked `pointr` and skipped unless
APML_POINTR names a clone. "Unpatched" below means: started by `apml run` for its stand-ins and its CPU mode, with no
`loss:` in the YAML, so nothing is attached.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

ROOT = Path(__file__).resolve().parents[2]
AIRPLANE, CAR = "02691156", "02958343"
ADAM = {"type": "Adam", "kwargs": {"lr": 0.0001, "weight_decay": 0}}
SGD = {"type": "SGD", "kwargs": {"lr": 0.0001}}
STEP = {"type": "StepLR", "kwargs": {"step_size": 50, "gamma": 0.5}}
WARM = {
    "type": "GradualWarmup",
    "kwargs_1": {"step_size": 50, "gamma": 0.5},
    "kwargs_2": {"multiplier": 1, "total_epoch": 2},
}
_BLOCK = {"embed_dim": 48, "num_heads": 6, "k": 8, "n_group": 2, "mlp_ratio": 2.0}

MODELS: dict[str, dict[str, Any]] = {
    "PCN": {"num_pred": 512, "encoder_channel": 1024},  # the class has that width written into its decoder
    "FoldingNet": {"num_pred": 256, "encoder_channel": 64},
    "TopNet": {"num_pred": 2048, "node_feature": 8, "encoder_feature": 64, "nlevels": 6},
    "PoinTr": {"num_pred": 64, "num_query": 16, "knn_layer": 1, "trans_dim": 48},
    "AdaPoinTr": {
        "num_query": 64,
        "num_points": 512,  # the class insists on the ground truth's number
        "center_num": [64, 32],
        "global_feature_dim": 128,
        "encoder_type": "graph",
        "decoder_type": "fc",
        "encoder_config": {**_BLOCK, "depth": 2, "block_style_list": ["attn-graph", "attn"], "combine_style": "concat"},
        "decoder_config": {
            **_BLOCK,
            "depth": 2,
            "self_attn_block_style_list": ["attn-graph", "attn"],
            "self_attn_combine_style": "concat",
            "cross_attn_block_style_list": ["attn-graph", "attn"],
            "cross_attn_combine_style": "concat",
        },
    },
    "SnowFlakeNet": {"dim_feat": 64, "num_pc": 64, "num_p0": 128, "radius": 1, "up_factors": [2, 2]},
    # A published scale of 128 would spend a minute an iteration on the gridding loss, whose weight is zero.
    "GRNet": {"num_pred": 512, "gridding_loss_scales": 4, "gridding_loss_alphas": 0.1},
}
"""Every model of the clone, at sizes that train in seconds; ground truth of 512 points."""


def copy_clone(target: Path) -> Path:
    """A copy of the clone that APML_POINTR names, with no change in any tracked file."""
    ignored = shutil.ignore_patterns("experiments", "__pycache__")
    shutil.copytree(os.environ["APML_POINTR"], target, ignore=ignored)
    assert changed(target) == ""
    return target


def changed(clone: Path) -> str:
    """What git says of tracked files; "" for a clean clone."""
    command = ["git", "status", "--porcelain", "--untracked-files=no"]
    return subprocess.run(command, cwd=clone, text=True, capture_output=True, check=True).stdout


def pcn_data(
    root: Path, points: int = 512, train: int = 12, test: int = 10, views: int = 8, cars: bool = False
) -> Path:
    """PCN's folders with .npy clouds: ellipsoids, the partial ones cut by a plane. Returns the dataset YAML.

    views: how many different partial clouds a training shape has in its eight files.
    cars: as the host's KITTI training reads it, cars alone, their partial clouds thinned and zero-padded.
    """
    random = np.random.default_rng(0)
    taxonomy = CAR if cars else AIRPLANE
    names = {"train": [f"t{i}" for i in range(train)], "test": [f"v{i}" for i in range(test)], "val": []}
    for subset in ("train", "test"):
        for name in names[subset]:
            cloud = ellipsoid(random, points)
            _save(root / subset / "complete" / taxonomy / f"{name}.npy", cloud)
            partial = [half(random, cloud) for _ in range(views)]
            for view in range(8 if subset == "train" else 1):
                _save(root / subset / "partial" / taxonomy / name / f"{view:02d}.npy", partial[view % views])
    (root / "PCN.json").write_text(json.dumps([{"taxonomy_id": taxonomy, "taxonomy_name": "generated", **names}]))
    return _describe(
        root,
        NAME="PCN",
        CATEGORY_FILE_PATH=str(root / "PCN.json"),
        N_POINTS=points,
        N_RENDERINGS=8,
        PARTIAL_POINTS_PATH=f"{root}/%s/partial/%s/%s/%02d.npy",
        COMPLETE_POINTS_PATH=f"{root}/%s/complete/%s/%s.npy",
        CARS=cars,
    )


def shapenet_data(root: Path, train: int = 3, test: int = 10) -> Path:
    """ShapeNet-55/34's layout: one folder of clouds, a list per subset. Returns the dataset YAML.

    8,192 points, as published: the host cuts off up to three quarters and takes 2,048 of what is left.
    """
    random = np.random.default_rng(1)
    for subset, count in (("train", train), ("test", test)):
        files = [f"{AIRPLANE}-{subset}{i}.npy" for i in range(count)]
        for file in files:
            _save(root / "clouds" / file, ellipsoid(random, 8192))
        (root / f"{subset}.txt").write_text("\n".join(files) + "\n")
    return _describe(root, NAME="ShapeNet", DATA_PATH=str(root), N_POINTS=8192, PC_PATH=str(root / "clouds"))


def projected_data(root: Path, train: int = 3, test: int = 10) -> Path:
    """Projected ShapeNet's layout: complete clouds of 8,192 points and rendered partial ones beside them."""
    random = np.random.default_rng(2)
    for subset, count in (("train", train), ("test", test)):
        files = [f"clouds/{AIRPLANE}-{subset}{i}.npy" for i in range(count)]
        for i, file in enumerate(files):
            cloud = ellipsoid(random, 8192)
            _save(root / file, cloud)
            for view in range(16 if subset == "train" else 1):
                _save(root / "partial" / AIRPLANE / f"{subset}{i}" / "models" / f"{view}.npy", half(random, cloud))
        (root / f"{subset}.txt").write_text("\n".join(files) + "\n")
    return _describe(
        root,
        NAME="Projected_ShapeNet",
        N_POINTS=8192,
        N_RENDERINGS=16,
        DATA_PATH=str(root),
        PARTIAL_POINTS_PATH=f"{root}/partial/%s/%s/models/%d.npy",
        COMPLETE_POINTS_ROOT=str(root),
        CARS=False,
    )


def kitti_data(root: Path, test: int = 2) -> Path:
    """KITTI's layout: single scans of cars, each with the eight corners of its box, and no ground truth."""
    random = np.random.default_rng(3)
    names = [f"frame_{i}_car_0" for i in range(test)]
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=float)
    for name in names:
        _save(root / "cars" / f"{name}.npy", half(random, ellipsoid(random, 400)) + 5.0)
        (root / "bboxes").mkdir(parents=True, exist_ok=True)
        np.savetxt(root / "bboxes" / f"{name}.txt", signs * 0.5 + 5.0)
    (root / "KITTI.json").write_text(json.dumps([{"taxonomy_id": CAR, "taxonomy_name": "car", "test": names}]))
    return _describe(
        root,
        NAME="KITTI",
        CATEGORY_FILE_PATH=str(root / "KITTI.json"),
        N_POINTS=16384,
        CLOUD_PATH=f"{root}/cars/%s.npy",
        BBOX_PATH=f"{root}/bboxes/%s.txt",
    )


def ellipsoid(random: np.random.Generator, points: int) -> np.ndarray:
    """(points, 3) on an ellipsoid with semi-axes from 0.2 to 0.5."""
    cloud = random.normal(size=(points, 3))
    return cloud / np.linalg.norm(cloud, axis=1, keepdims=True) * random.uniform(0.2, 0.5, size=3)


def half(random: np.random.Generator, cloud: np.ndarray) -> np.ndarray:
    """The points of `cloud` on one side of a random plane through its middle."""
    side = cloud @ random.normal(size=3)
    return cloud[side > np.median(side)]


def write_config(folder: Path, dataset: Path | Mapping[str, Path], model: str, **more: Any) -> Path:
    """`<model>.yaml` in `folder`: one epoch, batches of four. more: keys put over what is there.

    dataset: the YAML of every subset, or one each for train, val and test.
    """
    subsets = {name: "train" if name == "train" else "test" for name in ("train", "val", "test")}
    bases = dataset if isinstance(dataset, Mapping) else dict.fromkeys(subsets, dataset)
    written = {
        "optimizer": SGD if model == "GRNet" else ADAM,  # GRNet's checkpoint is 300 MB as it is, with Adam's state 900
        "scheduler": WARM if model == "SnowFlakeNet" else STEP,
        "dataset": {name: {"_base_": str(bases[name]), "others": {"subset": s}} for name, s in subsets.items()},
        "model": {"NAME": model, **MODELS[model]},
        "total_bs": 4,
        "step_per_update": 1,
        "max_epoch": 0,
        "consider_metric": "CDL1",
        **more,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{model}.yaml"
    path.write_text(yaml.safe_dump(written))
    return path


def train(
    clone: Path, config: Path, name: str, *args: str, fails: bool = False, more: Mapping[str, str] | None = None
) -> str:
    """The host's own main.py under `apml run`; its output. more: environment variables."""
    command = ["main.py", "--config", str(config), "--exp_name", name, "--num_workers", "0", "--seed", "7", *args]
    output = apml_run(clone, command, fails=fails, more=more)
    for line in output.splitlines():
        if re.search(r"apml|Losses|\[Validation\]|RESUME", line):
            print(line)
    return output


def apml_run(clone: Path, command: Sequence[str], fails: bool = False, more: Mapping[str, str] | None = None) -> str:
    """`apml run COMMAND` in the clone's root; its output, checked to have failed or not."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **(more or {})}
    done = subprocess.run(
        [sys.executable, "-m", "apml_plugin", "run", *command],
        cwd=clone,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=900,
        check=False,
    )
    assert (done.returncode != 0) is fails, done.stdout[-4000:]
    return done.stdout


def patch(clone: Path, *args: str) -> str:
    """`apml patch CLONE ...`; its output."""
    command = [sys.executable, "-m", "apml_plugin", "patch", str(clone), *args]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_folder(clone: Path, config: Path, name: str) -> Path:
    """Where the host keeps what a run wrote."""
    return clone / "experiments" / config.stem / config.parent.stem / name


def checkpoint(clone: Path, config: Path, name: str, which: str = "ckpt-last") -> Path:
    return run_folder(clone, config, name) / f"{which}.pth"


def weights(saved: Path) -> dict[str, torch.Tensor]:
    return torch.load(saved, weights_only=True)["base_model"]


def validation(saved: Path) -> dict[str, float]:
    """The numbers of the last validation before `saved` was written, unrounded (the log has four decimals)."""
    return torch.load(saved, weights_only=True)["metrics"]


def training_losses(output: str, epoch: int = 0) -> list[float]:
    """Sparse and dense loss x 1000 of an epoch, from its closing line."""
    (found,) = re.findall(rf"\[Training\] EPOCH: {epoch} .*Losses = \['([\d.]+)', '([\d.]+)'\]", output)
    return [float(value) for value in found]


_REWRITE = """
import sys
import torch
from utils.metrics import Metrics

source, target, metric, both = sys.argv[1:]
state = torch.load(source, map_location="cpu", weights_only=True)
state["best_metrics"] = Metrics(metric, state["best_metrics"])
if both == "both":
    state["metrics"] = Metrics(metric, state["metrics"])
torch.save(state, target)
"""


def old_layout(clone: Path, saved: Path, target: Path, both: bool = False) -> Path:
    """`saved` as PoinTr wrote checkpoints before 2021-08-19: `best_metrics` is a pickled utils.metrics.Metrics.

    Through it the pickle names the host's ChamferDistanceL1, ChamferDistanceL2 and emdModule as well. both: `metrics`,
    too. The host's own classes write it, in a process of their own. Today's `torch.load` refuses the file; the host
    reads it as PyTorch did then with TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 in `train(..., more=)`.
    """
    script = target.with_suffix(".py")
    script.write_text(_REWRITE)
    path = os.pathsep.join([str(ROOT), str(clone)])
    which = "both" if both else "best"
    apml_run(clone, [str(script), str(saved), str(target), "CDL1", which], more={"PYTHONPATH": path})
    script.unlink()
    return target


def _save(path: Path, cloud: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, cloud.astype(np.float32))


def _describe(root: Path, **keys: Any) -> Path:
    (root / "dataset.yaml").write_text(yaml.safe_dump(keys))
    return root / "dataset.yaml"
