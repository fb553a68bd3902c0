"""A real PoinTr clone: its own main.py trains with `loss: APML` on generated data, and the patch leaves no trace.

Opt in with APML_POINTR=path-of-a-clone (it is copied, never touched). Nothing of the host needs to be compiled.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

pytestmark = [pytest.mark.pointr, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
TAXONOMY = "02691156"
ADAM = {"type": "Adam", "kwargs": {"lr": 0.0001, "weight_decay": 0}}
MODELS = {
    "PCN": {"num_pred": 512, "encoder_channel": 1024},  # the class has that width written into its decoder
    "FoldingNet": {"num_pred": 256, "encoder_channel": 64},
    "TopNet": {"num_pred": 2048, "node_feature": 8, "encoder_feature": 64, "nlevels": 6},
    "PoinTr": {"num_pred": 64, "num_query": 16, "knn_layer": 1, "trans_dim": 48},
}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the clone with no change in any tracked file."""
    target = tmp_path_factory.mktemp("real") / "PoinTr"
    shutil.copytree(os.environ["APML_POINTR"], target, ignore=shutil.ignore_patterns("experiments", "__pycache__"))
    assert changed(target) == ""
    return target


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PCN's folder format with .npy clouds: ellipsoids, the partial ones cut by a plane. Returns the dataset YAML."""
    root = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    names = {"train": [f"t{i}" for i in range(8)], "test": [f"v{i}" for i in range(10)], "val": []}
    for subset in ("train", "test"):
        for name in names[subset]:
            points = random.normal(size=(512, 3))
            points = points / np.linalg.norm(points, axis=1, keepdims=True) * random.uniform(0.2, 0.5, size=3)
            save(root / subset / "complete" / TAXONOMY / f"{name}.npy", points)
            for view in range(8 if subset == "train" else 1):
                side = points @ random.normal(size=3)
                save(root / subset / "partial" / TAXONOMY / name / f"{view:02d}.npy", points[side > np.median(side)])
    (root / "PCN.json").write_text(json.dumps([{"taxonomy_id": TAXONOMY, "taxonomy_name": "airplane", **names}]))
    described = {
        "NAME": "PCN",
        "CATEGORY_FILE_PATH": str(root / "PCN.json"),
        "N_POINTS": 512,
        "N_RENDERINGS": 8,
        "PARTIAL_POINTS_PATH": f"{root}/%s/partial/%s/%s/%02d.npy",
        "COMPLETE_POINTS_PATH": f"{root}/%s/complete/%s/%s.npy",
        "CARS": False,
    }
    (root / "dataset.yaml").write_text(yaml.safe_dump(described))
    return root / "dataset.yaml"


def save(path: Path, points: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, points.astype(np.float32))


def config(folder: Path, dataset: Path, model: str, **more: object) -> Path:
    subsets = {name: "train" if name == "train" else "test" for name in ("train", "val", "test")}
    written = {
        "optimizer": ADAM,
        "scheduler": {"type": "StepLR", "kwargs": {"step_size": 50, "gamma": 0.5}},
        "dataset": {n: {"_base_": str(dataset), "others": {"subset": s}} for n, s in subsets.items()},
        "model": {"NAME": model, **MODELS[model]},
        "total_bs": 4,
        "step_per_update": 1,
        "max_epoch": 0,
        "consider_metric": "CDL1",
        **more,
    }
    path = folder / f"{model}.yaml"
    path.write_text(yaml.safe_dump(written))
    return path


def train(clone: Path, path: Path, name: str, *args: str, fails: bool = False) -> str:
    """The host's own main.py under `apml run`; its output."""
    command = [sys.executable, "-m", "apml_plugin", "run", "main.py", "--config", str(path), "--exp_name", name]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [*command, "--num_workers", "0", "--seed", "7", *args],
        cwd=clone,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=600,
        check=False,
    )
    assert (done.returncode != 0) is fails, done.stdout[-4000:]
    for line in done.stdout.splitlines():
        if re.search(r"apml|Losses|\[Validation\]|RESUME", line):
            print(line)
    return done.stdout


def patch(clone: Path, *args: str) -> str:
    command = [sys.executable, "-m", "apml_plugin", "patch", str(clone), *args]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def changed(clone: Path) -> str:
    command = ["git", "status", "--porcelain", "--untracked-files=no"]
    return subprocess.run(command, cwd=clone, text=True, capture_output=True, check=True).stdout


def results(clone: Path, path: Path, name: str) -> dict[str, torch.Tensor]:
    saved = clone / "experiments" / path.stem / path.parent.stem / name / "ckpt-last.pth"
    return torch.load(saved, weights_only=True)["base_model"]


def training_losses(output: str) -> list[float]:
    (found,) = re.findall(r"\[Training\] EPOCH: 0 .*Losses = \['([\d.]+)', '([\d.]+)'\]", output)
    return [float(value) for value in found]


@pytest.mark.parametrize("model", MODELS)
def test_trains_with_apml_validates_saves_and_resumes(clone: Path, dataset: Path, tmp_path: Path, model: str) -> None:
    patch(clone)
    try:
        path = config(tmp_path, dataset, model, loss="APML")
        output = train(clone, path, "apml")
        assert f"[apml] {model} trains with APML(p_min=0.8" in output
        assert output.count("trains with") == 1
        assert "[Validation] EPOCH: 0" in output
        log = next((clone / "experiments" / model / path.parent.stem / "apml").glob("*.log"))
        assert f"[apml] {model} trains with APML(" in log.read_text()
        # The published scale: far above any Chamfer distance of clouds smaller than the unit cube, times 1000.
        assert min(training_losses(output)) > 5000

        saved = log.parent / "config.yaml"
        saved.write_text(saved.read_text().replace("max_epoch: 0", "max_epoch: 1"))
        resumed = train(clone, path, "apml", "--resume")
        assert "[Training] EPOCH: 1" in resumed
        assert f"[apml] {model} trains with APML(" in resumed
    finally:
        patch(clone, "--revert")
    assert changed(clone) == ""


@pytest.mark.parametrize("model", MODELS)
def test_without_loss_a_patched_host_is_bit_equal(clone: Path, dataset: Path, tmp_path: Path, model: str) -> None:
    path = config(tmp_path, dataset, model)
    before = train(clone, path, "before", "--deterministic")
    patch(clone)
    try:
        after = train(clone, path, "after", "--deterministic")
    finally:
        patch(clone, "--revert")
    assert training_losses(before) == training_losses(after)
    one, two = results(clone, path, "before"), results(clone, path, "after")
    assert list(one) == list(two)
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert changed(clone) == ""


def test_apml_run_alone_attaches_what_the_patch_does(clone: Path, dataset: Path, tmp_path: Path) -> None:
    path = config(tmp_path, dataset, "PCN", loss={"coarse": "ChamferL2", "fine": {"NAME": "APML", "reduction": "mean"}})
    unpatched = train(clone, path, "unpatched")
    assert unpatched.count("trains with") == 1
    patch(clone)
    try:
        assert training_losses(train(clone, path, "patched")) == training_losses(unpatched)
    finally:
        patch(clone, "--revert")


def test_a_released_checkpoint_loads_strictly(clone: Path, dataset: Path, tmp_path: Path) -> None:
    train(clone, config(tmp_path, dataset, "FoldingNet"), "released")
    start = clone / "experiments" / "FoldingNet" / tmp_path.stem / "released" / "ckpt-last.pth"
    path = config(tmp_path, dataset, "FoldingNet", loss={"NAME": "APML", "reduction": "mean"})
    output = train(clone, path, "tuned", "--start_ckpts", str(start))
    assert "Loading weights" in output
    assert "[apml] FoldingNet trains with APML(" in output


def test_a_misspelt_loss_stops_the_run(clone: Path, dataset: Path, tmp_path: Path) -> None:
    output = train(clone, config(tmp_path, dataset, "PCN", loss="APLM"), "misspelt", fails=True)
    assert "UnknownLossError: no loss is called 'APLM'" in output
    assert "'APML'" in output
