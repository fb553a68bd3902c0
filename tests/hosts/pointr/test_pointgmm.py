"""PointGMM in a PoinTr-style host: by its name in the YAML, patched or under `apml run`, no host file touched."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from easydict import EasyDict

import apml_plugin.studies.demo
from apml_plugin.errors import LossArgumentError
from apml_plugin.hooks import takes_loss
from apml_plugin.hosts.pointr.decorating import hoist
from apml_plugin.hosts.pointr.pointgmm import PointGMM
from apml_plugin.losses import APML
from apml_plugin.losses.mixture import GMM, HGMM, EigenPenalty, LatentKL
from apml_plugin.shapes import dataset_config, write_dataset

SOURCE = Path(apml_plugin.studies.demo.__file__).parent / "host"
CONFIG = Path(__file__).parents[3] / "configs" / "pointgmm" / "PointGMM.yaml"
SIZES = {"NAME": "PointGMM", "num_pred": 64, "dim_z": 16, "dim_h": 16, "levels": [4, 8], "encoder": [8, 16, 32]}


def registry():
    """The small host's own Registry class, new each time."""
    spec = importlib.util.spec_from_file_location("small_host_registry", SOURCE / "utils" / "registry.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Registry("models")


def build_model_from_cfg(cfg, **kwargs):
    """As hosts write it: it uses a registry of its module."""
    return MODELS.build(cfg, **kwargs)


MODELS = registry()


def test_a_patched_builder_knows_the_name() -> None:
    MODELS.module_dict.clear()
    model = takes_loss(build_model_from_cfg)(EasyDict(SIZES))
    assert isinstance(model, PointGMM)
    assert model.criterion.describe() == "HGMM(reduction=mean)"
    assert isinstance(takes_loss(build_model_from_cfg)(EasyDict(SIZES)), PointGMM)  # a second time as well


def test_a_registry_under_apml_run_knows_the_name_and_a_hosts_own_model_stays() -> None:
    mine = registry()
    assert isinstance(takes_loss(mine.build)(EasyDict(SIZES)), PointGMM)
    theirs = registry()
    theirs.register_module(name="PointGMM")(type("PointGMM", (), {"__init__": lambda self, config: None}))
    assert not isinstance(takes_loss(theirs.build)(EasyDict(SIZES)), PointGMM)
    with pytest.raises(KeyError, match="PCM"):
        takes_loss(registry().build)(EasyDict(NAME="PCM"))


@pytest.mark.parametrize("variational", [False, True])
def test_get_loss_reads_what_forward_laid_out(variational: bool) -> None:
    terms = ["HGMM", "GMM", {"NAME": "EigenPenalty", "weight": 10}, {"NAME": "APML", "weight": 0.1}]
    loss = [*terms, *([{"NAME": "LatentKL", "weight": 2}] if variational else [])]
    model = PointGMM(EasyDict(SIZES, loss=loss, variational=variational))
    assert not any(key.startswith("criterion") for key in model.state_dict())
    cloud, gt = torch.rand(3, 40, 3), torch.rand(3, 50, 3)
    ret = model(cloud)
    assert (ret[0].shape, ret[-1].shape) == ((3, 8, 3), (3, 64, 3))
    assert all(isinstance(t, torch.Tensor) and len(t) == 3 for t in ret)
    output = model.read(ret)
    of_mixture, of_points = model.get_loss(ret, gt, 3)
    expected = HGMM()(output, gt) + GMM()(output, gt) + 10 * EigenPenalty()(output)
    if variational:
        expected = expected + 2 * LatentKL()(output)
    torch.testing.assert_close(of_mixture, expected)
    torch.testing.assert_close(of_points, 0.1 * APML()(ret[-1], gt))
    (of_mixture + of_points).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_the_loss_chosen_for_a_run_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APML_LOSS", "{NAME: APML, p_min: 0.7}")
    model = takes_loss(registry().build)(EasyDict(SIZES))
    assert model.criterion.settings.p_min == 0.7


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"num_preds": 3}, "PointGMM takes no argument 'num_preds': did you mean 'num_pred'"),
        ({"loss": "LatentKL"}, "variational"),
        ({"loss": {"coarse": "APML"}}, "no stages"),
    ],
)
def test_a_config_that_cannot_be_used_says_so_when_built(more: dict[str, object], message: str) -> None:
    with pytest.raises(LossArgumentError, match=message):
        takes_loss(registry().build)(EasyDict({**SIZES, **more}))


def test_the_shipped_config_builds() -> None:
    config = hoist(EasyDict(yaml.safe_load(CONFIG.read_text())))
    model = PointGMM(config.model)
    assert model.decoder.levels == (8, 32, 128, 512)
    assert "10 * EigenPenalty()" in model.criterion.describe()


def test_a_hosts_own_loop_trains_it_and_its_checkpoint_loads(tmp_path: Path) -> None:
    host = tmp_path / "host"
    shutil.copytree(SOURCE, host, ignore=shutil.ignore_patterns("__pycache__"))
    list(write_dataset(host / "data/PCN", train=2, test=1, points=64, partial=48))
    (host / "cfgs/dataset_configs/PCN.yaml").write_text(yaml.safe_dump(dataset_config(Path("data/PCN"), 64)))
    config = yaml.safe_load(CONFIG.read_text())
    config.update(total_bs=4, max_epoch=1, model=SIZES, log_freq=1)
    config["loss"].append({"NAME": "APML", "reduction": "mean"})
    (host / "cfgs/PCN_models/PointGMM.yaml").write_text(yaml.safe_dump(config))
    root = str(Path(apml_plugin.__file__).parents[1])
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root, "CUDA_VISIBLE_DEVICES": ""}
    words = ["main.py", "--config", "cfgs/PCN_models/PointGMM.yaml", "--num_workers", "0", "--exp_name", "x"]
    command = [sys.executable, "-m", "apml_plugin", "run", "--", sys.executable, *words]
    done = subprocess.run(command, cwd=host, env=environ, capture_output=True, text=True, timeout=120)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "PointGMM trains with 1 * HGMM(reduction=mean) + 10 * EigenPenalty() + 1 * APML(" in output
    assert "Metrics = {" in output
    state = torch.load(host / "experiments/PointGMM/PCN_models/x/ckpt-best.pth", weights_only=True)["base_model"]
    PointGMM(EasyDict(SIZES)).load_state_dict(state, strict=True)
