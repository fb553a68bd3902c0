"""Every YAML in configs/pointr loads as a host loads it, and its loss builds."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from apml_plugin.hosts.pointr import hoist
from apml_plugin.losses import APML
from apml_plugin.registry import build_loss

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "pointr"
CONFIGS = sorted(FOLDER.glob("*.yaml"))
NEEDED = {
    "PCN": {"num_pred", "encoder_channel"},
    "FoldingNet": {"num_pred", "encoder_channel"},
    "TopNet": {"num_pred", "node_feature", "encoder_feature", "nlevels"},
    "PoinTr": {"num_pred", "num_query", "knn_layer", "trans_dim"},
}


def read(path: Path) -> dict:  # type: ignore[type-arg]
    return hoist(yaml.load(path.read_text(), Loader=yaml.FullLoader))


def test_each_model_has_four() -> None:
    kinds = {"", "_sum", "_finetune", "_finetune_sum"}
    assert {path.stem for path in CONFIGS} == {f"{name.lower()}{kind}" for name in NEEDED for kind in kinds}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_loads_and_builds(path: Path) -> None:
    config = read(path)
    loss = build_loss(config["model"]["loss"])
    assert isinstance(loss, APML)
    sums = path.stem.endswith("_sum")
    assert loss.reduction == ("sum" if sums else "mean")
    # The clipping of the sum is that of the mean, times the number of ground-truth points.
    assert config.get("grad_norm_clip") == (10 * 16384 if sums else None)
    name = config["model"]["NAME"]
    assert path.stem.split("_")[0] == name.lower()
    assert set(config["model"]) == NEEDED[name] | {"NAME", "loss"}
    assert isinstance(config["optimizer"]["kwargs"]["lr"], float)
    assert config["consider_metric"] == "CDL1"
    assert {part["_base_"] for part in config["dataset"].values()} == {"cfgs/dataset_configs/PCN.yaml"}
    assert [config["dataset"][part]["others"]["subset"] for part in ("train", "val", "test")] == [
        "train",
        "test",
        "test",
    ]


@pytest.mark.parametrize("name", [name.lower() for name in NEEDED])
def test_fine_tuning_is_gentler(name: str) -> None:
    scratch, fine = read(FOLDER / f"{name}.yaml"), read(FOLDER / f"{name}_finetune.yaml")
    assert fine["optimizer"]["kwargs"]["lr"] == pytest.approx(scratch["optimizer"]["kwargs"]["lr"] / 10)
    assert fine["max_epoch"] < scratch["max_epoch"]
