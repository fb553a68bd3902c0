"""Every YAML in configs/pointr loads as a host loads it, holds what its model reads, and its loss builds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from apml_plugin.hosts.derived_config import derive
from apml_plugin.hosts.pointr.decorating import hoist
from apml_plugin.hosts.pointr.stages import KNOWN
from apml_plugin.losses import APML
from apml_plugin.registry import build_loss

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "pointr"
SHIPPED = sorted(FOLDER.glob("*.yaml"))
_BLOCKS = {"embed_dim", "depth", "num_heads", "k", "n_group", "mlp_ratio"}
NEEDED: dict[str, dict[str, set[str]]] = {
    "PCN": {"": {"num_pred", "encoder_channel"}},
    "FoldingNet": {"": {"num_pred", "encoder_channel"}},
    "TopNet": {"": {"num_pred", "node_feature", "encoder_feature", "nlevels"}},
    "PoinTr": {"": {"num_pred", "num_query", "knn_layer", "trans_dim"}},
    "AdaPoinTr": {
        "": {
            *("num_query", "num_points", "center_num", "global_feature_dim", "encoder_type", "decoder_type"),
            *("encoder_config", "decoder_config"),
        },
        "encoder_config": {*_BLOCKS, "block_style_list", "combine_style"},
        "decoder_config": {
            *(*_BLOCKS, "self_attn_block_style_list", "self_attn_combine_style"),
            *("cross_attn_block_style_list", "cross_attn_combine_style"),
        },
    },
    "GRNet": {"": {"num_pred", "gridding_loss_scales", "gridding_loss_alphas"}},
    "SnowFlakeNet": {"": {"dim_feat", "num_pc", "num_p0", "radius", "up_factors"}},
}
"""What each class reads of its config, under `model:` and in the mappings there."""


def read(path: Path) -> dict[str, Any]:
    return hoist(yaml.load(path.read_text(), Loader=yaml.FullLoader))


def label(path: Path) -> str:
    return path.stem


def points_of(model: dict[str, Any]) -> int | None:
    """How many points a model of this config gives; None where its layers decide."""
    given = model.get("num_pred", model.get("num_points"))
    return given + 2048 if model["NAME"] == "PoinTr" else given


def test_each_model_has_one_and_there_is_an_example_of_fine_tuning() -> None:
    assert {path.stem for path in SHIPPED} == {*(name.lower() for name in NEEDED), "pcn_finetune"}


@pytest.mark.parametrize("path", SHIPPED, ids=label)
def test_loads_and_builds(path: Path) -> None:
    config = read(path)
    loss = build_loss(config["model"]["loss"])
    assert isinstance(loss, APML)
    assert loss.reduction == "mean"
    assert "grad_norm_clip" not in config
    name = config["model"]["NAME"]
    assert path.stem.split("_")[0] == name.lower()
    for part, keys in NEEDED[name].items():
        given = config["model"][part] if part else config["model"]
        assert set(given) == keys | (set() if part else {"NAME", "loss"})
    assert isinstance(config["optimizer"]["kwargs"]["lr"], float)
    assert config["consider_metric"] in ("CDL1", "CDL2")
    assert f"Chamfer-{config['consider_metric'][2:]}" in path.read_text().splitlines()[-1]
    assert [config["dataset"][part]["others"]["subset"] for part in ("train", "val", "test")] == [
        "train",
        "test",
        "test",
    ]


@pytest.mark.parametrize("path", SHIPPED, ids=label)
def test_reads_the_host_s_pcn(path: Path) -> None:
    config = read(path)
    assert {part["_base_"] for part in config["dataset"].values()} == {"cfgs/dataset_configs/PCN.yaml"}
    assert points_of(config["model"]) in (16384, None)


DERIVED = {  # learning rate, step of its schedule, batch norm's momentum when fine-tuning
    "PCN": (1e-05, {"step_size": 10}, None),
    "FoldingNet": (1e-05, {"step_size": 10}, None),
    "TopNet": (1e-04, {"step_size": 10}, None),
    "PoinTr": (5e-05, {"decay_step": 7}, 0.01),
    "AdaPoinTr": (1e-05, {"decay_step": 7}, 0.01),
    "GRNet": (1e-05, {"step_size": 10}, None),
    "SnowFlakeNet": (1e-04, {"step_size": 10}, None),
}


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("finetune", [False, True])
@pytest.mark.parametrize("name", NEEDED)
def test_variants_are_derived(name: str, reduction: str, finetune: bool) -> None:
    """The variants that `apml config` derives differ from the shipped YAML in these keys only."""
    path = FOLDER / f"{name.lower()}.yaml"
    derived = derive(path.read_text(), {"NAME": "APML", "reduction": reduction}, finetune)
    config, expected = read(path), yaml.safe_load(derived.text)
    config["loss"] = config["model"].pop("loss")
    config["loss"]["reduction"] = reduction
    if reduction == "sum" and name != "SnowFlakeNet":  # its number of points is only in the host's data set
        config["grad_norm_clip"] = 10 * 16384
    assert bool(derived.warnings) == (reduction == "sum" and name == "SnowFlakeNet")
    if finetune:
        rate, step, momentum = DERIVED[name]
        config["optimizer"]["kwargs"]["lr"] = rate
        config["scheduler"]["kwargs_1" if name == "SnowFlakeNet" else "kwargs"].update(step)
        if momentum is not None:
            config["bnmscheduler"]["kwargs"]["bn_momentum"] = momentum
        config["max_epoch"] = 30
    assert expected == config


def test_the_example_of_fine_tuning_is_what_the_command_derives() -> None:
    derived = derive((FOLDER / "pcn.yaml").read_text(), "APML", finetune=True)
    assert yaml.safe_load(derived.text) == yaml.safe_load((FOLDER / "pcn_finetune.yaml").read_text())


@pytest.mark.parametrize("path", [FOLDER / "adapointr.yaml"], ids=label)
def test_adapointr_blocks_are_as_deep_as_they_are_listed(path: Path) -> None:
    model = read(path)["model"]
    for part in ("encoder_config", "decoder_config"):
        styles = [value for key, value in model[part].items() if key.endswith("style_list")]
        assert {len(style) for style in styles} == {model[part]["depth"]}


def test_the_example_in_a_comment_is_valid() -> None:
    """AdaPoinTr's YAMLs show how to replace the denoising term, too."""
    (line,) = [x for x in (FOLDER / "adapointr.yaml").read_text().splitlines() if x.startswith("#   loss: {coarse")]
    loss = build_loss(yaml.load(line[1:], Loader=yaml.FullLoader)["loss"])
    assert sorted(loss.names) == ["coarse", "denoise", "fine"]
    assert all(loss.stage(name).reduction == "mean" for name in loss.names)


README = (FOLDER / "README.md").read_text()


def test_the_table_says_what_is_replaced() -> None:
    rows = re.findall(
        r"^\| (\w+) \| ([\w, ]+) \| Chamfer-(L[12]) of ([^|]*) \| ([^|]*) \|$", README, flags=re.MULTILINE
    )
    assert {name: tuple(stages.split(", ")) for name, stages, *_ in rows} == {
        name: tuple(stage for site in sites for stage in site.stages) for name, sites in KNOWN.items()
    }
    for name, _, _, _, stays in rows:
        for stage in (stage for site in KNOWN[name] for stage in site.kept):
            assert stays.startswith(stage)
            assert f"`{stage}: APML`" in stays


def test_the_readmes_examples_build() -> None:
    (examples,) = re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL)
    for line in examples.splitlines():
        loss = build_loss(yaml.safe_load(line)["loss"])
        assert set(loss.names) <= {stage for sites in KNOWN.values() for site in sites for stage in site.stages}


def test_every_model_is_named() -> None:
    for name in NEEDED:
        assert f"| {name} |" in README
