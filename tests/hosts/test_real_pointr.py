"""A real PoinTr clone: its own main.py trains every model with `loss: APML` on generated data, and leaves no trace.

Opt in with APML_POINTR=path-of-a-clone (it is copied, never touched). Nothing of the host needs to be compiled.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hosts.real_pointr import (
    MODELS,
    ROOT,
    apml_run,
    changed,
    checkpoint,
    copy_clone,
    kitti_data,
    old_layout,
    patch,
    pcn_data,
    projected_data,
    run_folder,
    shapenet_data,
    train,
    training_losses,
    validation,
    weights,
    write_config,
)

from apml_plugin.hosts.base import check_config

pytestmark = [pytest.mark.pointr, pytest.mark.slow]

CONFIGS = ROOT / "configs" / "pointr"
HOSTS_FOLDERS = {
    "pointr": "PCN_models",
    "shapenet55": "ShapeNet55_models",
    "shapenet34": "ShapeNet34_models",
    "projected55": "Projected_ShapeNet55_models",
    "projected34": "Projected_ShapeNet34_models",
    "kitti": "KITTI_models",
}
STAGES = {
    "AdaPoinTr": {"denoise": "the host's own loss", "coarse": "APML", "fine": "APML"},
    "SnowFlakeNet": dict.fromkeys(("coarse", "p1", "p2", "fine"), "APML"),
}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_clone(tmp_path_factory.mktemp("real") / "PoinTr")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pcn_data(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("model", MODELS)
def test_trains_with_apml_validates_resumes_and_leaves_no_trace(
    clone: Path, dataset: Path, tmp_path: Path, model: str
) -> None:
    """Unpatched with Chamfer; patched without `loss:`, bit-equal; fine-tuned from it with APML; resumed; reverted."""
    plain = write_config(tmp_path / "plain", dataset, model)
    before = train(clone, plain, "before", "--deterministic")
    patch(clone)
    try:
        after = train(clone, plain, "after", "--deterministic")
        assert training_losses(before) == training_losses(after)
        released = checkpoint(clone, plain, "before")
        one, two = weights(released), weights(checkpoint(clone, plain, "after"))
        assert list(one) == list(two)
        assert all(torch.equal(one[key], two[key]) for key in one)
        assert validation(released) == validation(checkpoint(clone, plain, "after"))

        path = write_config(tmp_path, dataset, model, loss="APML")
        output = train(clone, path, "apml", "--start_ckpts", str(released))
        assert f"[apml] {model} trains with APML(p_min=0.8" in output.replace("{coarse: ", "")
        assert output.count("trains with") == 1
        assert "Loading weights" in output
        assert "[Batch 1/3]" in output
        assert "[Validation] EPOCH: 0" in output
        log = next(run_folder(clone, path, "apml").glob("*.log"))
        assert f"[apml] {model} trains with APML(" in log.read_text()
        # The published scale: far above any Chamfer distance of clouds smaller than the unit cube, times 1000.
        assert max(training_losses(output)) > 5000

        saved = log.parent / "config.yaml"
        saved.write_text(saved.read_text().replace("max_epoch: 0", "max_epoch: 1"))
        resumed = train(clone, path, "apml", "--resume")
        assert "[Training] EPOCH: 1" in resumed
        assert f"[apml] {model} trains with APML(" in resumed
        assert all(torch.isfinite(tensor).all() for tensor in weights(checkpoint(clone, path, "apml")).values())
    finally:
        patch(clone, "--revert")
        shutil.rmtree(clone / "experiments")
    assert changed(clone) == ""


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_our_configs_carry_the_hosts_facts(clone: Path, path: Path) -> None:
    """The same model, data, batch and schedule as the host's YAML for it, gentler where we fine-tune; all keys read."""
    ours = yaml.safe_load(path.read_text())
    name = ours["model"]["NAME"]
    theirs = yaml.safe_load((clone / "cfgs" / HOSTS_FOLDERS[path.parent.name] / f"{name}.yaml").read_text())
    if name == "TopNet":  # the class reads encoder_feature
        theirs["model"]["encoder_feature"] = theirs["model"].pop("encoder_channel")
    if name == "SnowFlakeNet":  # the train loop refuses PCNv2
        for part in theirs["dataset"].values():
            part["_base_"] = part["_base_"].replace("PCNv2", "PCN")
    gentler = "finetune" in path.stem and path.parent.name != "kitti"
    for key in ("model", "dataset", "total_bs", "step_per_update", "consider_metric"):
        assert ours[key] == theirs[key], key
    for key in ("optimizer", "scheduler", "bnmscheduler", "max_epoch"):
        assert kinds(ours.get(key)) == kinds(theirs.get(key)), key
        if not gentler:
            assert ours.get(key) == theirs.get(key), key
    if gentler:
        assert ours["optimizer"]["kwargs"]["lr"] == pytest.approx(theirs["optimizer"]["kwargs"]["lr"] / 10)

    found = check_config(path, clone)
    assert not found.error
    assert not [warning for warning in found.warnings if "building it will fail" in warning]
    said = {stage: text.split("(")[0] for stage, text in found.stages.items()}
    assert said == STAGES.get(name, {"coarse": "APML", "fine": "APML"})


def kinds(value: Any) -> Any:
    """The shape of a part of a YAML: its keys, its strings, and the types of the rest."""
    if isinstance(value, dict):
        return {key: kinds(part) for key, part in value.items()}
    return value if isinstance(value, str) else type(value)


def test_apml_run_alone_attaches_what_the_patch_does(clone: Path, dataset: Path, tmp_path: Path) -> None:
    loss = {"coarse": "ChamferL2", "fine": {"NAME": "APML", "reduction": "mean"}}
    path = write_config(tmp_path, dataset, "PCN", loss=loss)
    unpatched = train(clone, path, "unpatched")
    assert unpatched.count("trains with") == 1
    patch(clone)
    try:
        assert training_losses(train(clone, path, "patched")) == training_losses(unpatched)
    finally:
        patch(clone, "--revert")


def test_a_misspelt_loss_stops_the_run(clone: Path, dataset: Path, tmp_path: Path) -> None:
    output = train(clone, write_config(tmp_path, dataset, "PCN", loss="APLM"), "misspelt", fails=True)
    assert "no loss is called 'APLM'" in output
    assert "'APML'" in output


@pytest.mark.parametrize(("model", "each"), [("FoldingNet", 1), ("TopNet", 1), ("AdaPoinTr", 2), ("SnowFlakeNet", 4)])
def test_a_pair_is_matched_once(clone: Path, dataset: Path, tmp_path: Path, model: str, each: int) -> None:
    """FoldingNet and TopNet return one cloud as coarse and fine: one APML an iteration, not two."""
    path = write_config(tmp_path, dataset, model, loss="APML")
    (clone / "counting.py").write_text(COUNTING)
    output = apml_run(clone, ["counting.py", "--config", str(path), "--exp_name", "counted", "--num_workers", "0"])
    assert f"APML ran {3 * each} times" in output
    if each == 1:
        sparse, dense = training_losses(output)
        assert sparse == dense


COUNTING = """
import runpy
import apml_plugin

APML, times = apml_plugin.APML, 0
forward = APML.forward

def counted(self, *args, **kwargs):
    global times
    times += 1
    return forward(self, *args, **kwargs)

APML.forward = counted
runpy.run_path("main.py", run_name="__main__")
print(f"APML ran {times} times")
"""


def test_adapointr_keeps_chamfer_for_denoising_unless_it_is_named(clone: Path, dataset: Path, tmp_path: Path) -> None:
    """The host logs denoising as the sparse loss: there APML's published scale shows only where it was asked for."""
    whole = train(clone, write_config(tmp_path, dataset, "AdaPoinTr", loss="APML"), "whole")
    assert "(stages coarse, fine), ChamferDistanceL1 kept for denoise;" in whole
    denoise, dense = training_losses(whole)
    assert denoise < 1000 < 10_000 < dense
    named = train(clone, write_config(tmp_path, dataset, "AdaPoinTr", loss={"denoise": "APML"}), "named")
    assert "in place of ChamferDistanceL1 (stages denoise), ChamferDistanceL1 kept for coarse, fine;" in named
    denoise, dense = training_losses(named)
    assert dense < 2000 < 10_000 < denoise


def test_snowflakenet_stages_have_names(clone: Path, dataset: Path, tmp_path: Path) -> None:
    mean = {"NAME": "APML", "reduction": "mean"}
    loss = {"coarse": mean, "p1": mean, "p2": mean, "fine": "ChamferL1"}
    output = train(clone, write_config(tmp_path, dataset, "SnowFlakeNet", loss=loss), "stages")
    assert "fine: ChamferL1" in output
    assert "in place of ChamferDistanceL1; validation" in output


def test_the_datasets_of_the_shipped_configs(clone: Path, tmp_path: Path) -> None:
    """ShapeNet-55/34, its projected form, and KITTI: trained on cars, tested on scans that have no ground truth."""
    mean = {"NAME": "APML", "reduction": "mean"}
    small = {"loss": mean, "total_bs": 1}
    for name, data in (("shapenet", shapenet_data), ("projected", projected_data)):
        described = data(tmp_path / name)
        output = train(clone, write_config(tmp_path / f"{name}_run", described, "FoldingNet", **small), name)
        assert "[Batch 1/3]" in output
        assert "[Validation] EPOCH: 0" in output

    cars, scans = pcn_data(tmp_path / "cars", cars=True), kitti_data(tmp_path / "scans")
    path = write_config(tmp_path / "kitti_run", {"train": cars, "val": cars, "test": scans}, "PCN", loss=mean)
    assert "padding while KITTI training" in train(clone, path, "kitti")
    train(clone, path, "kitti", "--test", "--ckpts", str(checkpoint(clone, path, "kitti")))
    assert len(list(run_folder(clone, path, "test_kitti").rglob("pred.npy"))) == 2


@pytest.mark.parametrize("both", [False, True])
def test_the_old_layout_is_what_pytorch_refuses_today(clone: Path, dataset: Path, tmp_path: Path, both: bool) -> None:
    """Where the fine-tuning checks start from: refused by default, read by the host as PyTorch did then."""
    path = write_config(tmp_path, dataset, "FoldingNet")
    train(clone, path, "now")
    saved = checkpoint(clone, path, "now")
    old = old_layout(clone, saved, tmp_path / "old.pth", both)
    with pytest.raises(Exception, match=r"utils\.metrics\.Metrics"):
        torch.load(old, weights_only=True)
    trusting = {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
    train(clone, path, "from_old", "--start_ckpts", str(old), "--deterministic", more=trusting)
    train(clone, path, "from_now", "--start_ckpts", str(saved), "--deterministic")
    assert validation(checkpoint(clone, path, "from_old")) == validation(checkpoint(clone, path, "from_now"))
