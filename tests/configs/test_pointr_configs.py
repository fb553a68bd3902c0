"""Every YAML in configs/pointr loads as a host loads it, holds what its model reads, and its loss builds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from apml_plugin.hosts.pointr.decorating import hoist
from apml_plugin.hosts.pointr.stages import KNOWN
from apml_plugin.losses import APML
from apml_plugin.registry import build_loss

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "pointr"
PCN = sorted(FOLDER.glob("*.yaml"))
OTHERS = sorted(FOLDER.glob("*/*.yaml"))
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
_SHAPENET = {"PCN", "FoldingNet", "TopNet", "PoinTr", "AdaPoinTr", "GRNet"}
DATASETS = {
    "shapenet55": ("ShapeNet-55", "ShapeNet-55", 8192, _SHAPENET),
    "shapenet34": ("ShapeNet-34", "ShapeNet-34", 8192, _SHAPENET),
    "projected55": ("Projected_ShapeNet-55_noise", "Projected_ShapeNet-55_noise", 8192, {"AdaPoinTr"}),
    "projected34": ("Projected_ShapeNet-34_noise", "Projected_ShapeNet-34_noise", 8192, {"AdaPoinTr"}),
    "kitti": ("PCNCars", "KITTI", 16384, _SHAPENET - {"AdaPoinTr"}),
}
"""Folder -> the host's dataset file for training, that for testing, the ground truth's points, the models."""


def read(path: Path) -> dict[str, Any]:
    return hoist(yaml.load(path.read_text(), Loader=yaml.FullLoader))


def label(path: Path) -> str:
    return path.relative_to(FOLDER).with_suffix("").as_posix()


def points_of(model: dict[str, Any]) -> int | None:
    """How many points a model of this config gives; None where its layers decide."""
    given = model.get("num_pred", model.get("num_points"))
    return given + 2048 if model["NAME"] == "PoinTr" else given


def test_each_model_has_four_for_pcn() -> None:
    kinds = {"", "_sum", "_finetune", "_finetune_sum"}
    assert {path.stem for path in PCN} == {f"{name.lower()}{kind}" for name in NEEDED for kind in kinds}


def test_the_other_data_sets_have_what_the_host_has() -> None:
    expected = {f"{folder}/{name.lower()}_finetune" for folder, (*_, names) in DATASETS.items() for name in names}
    assert {label(path) for path in OTHERS} == expected


@pytest.mark.parametrize("path", [*PCN, *OTHERS], ids=label)
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


@pytest.mark.parametrize("path", PCN, ids=label)
def test_reads_the_host_s_pcn(path: Path) -> None:
    config = read(path)
    assert {part["_base_"] for part in config["dataset"].values()} == {"cfgs/dataset_configs/PCN.yaml"}
    assert points_of(config["model"]) in (16384, None)


@pytest.mark.parametrize("path", OTHERS, ids=label)
def test_reads_the_host_s_data_set(path: Path) -> None:
    config = read(path)
    train, test, points, _ = DATASETS[path.parent.name]
    bases = {subset: part["_base_"] for subset, part in config["dataset"].items()}
    assert bases["train"] == bases["val"] == f"cfgs/dataset_configs/{train}.yaml"
    assert bases["test"] == f"cfgs/dataset_configs/{test}.yaml"
    assert points_of(config["model"]) == points
    assert f"grad_norm_clip: {10 * points} " in path.read_text()


@pytest.mark.parametrize("name", [name.lower() for name in NEEDED])
def test_fine_tuning_is_gentler(name: str) -> None:
    scratch, fine = read(FOLDER / f"{name}.yaml"), read(FOLDER / f"{name}_finetune.yaml")
    assert fine["optimizer"]["kwargs"]["lr"] == pytest.approx(scratch["optimizer"]["kwargs"]["lr"] / 10)
    assert fine["max_epoch"] < scratch["max_epoch"]


@pytest.mark.parametrize("path", [path for path in PCN if path.stem.startswith("adapointr")], ids=label)
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


def test_every_folder_and_model_is_named() -> None:
    for word in (*DATASETS, *(f"| {name} |" for name in NEEDED)):
        assert word in README
