"""Losses of ours that Lightning's save_hyperparameters() put into a checkpoint: read by default, nothing besides."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from apml_plugin import APML
from apml_plugin._moved import MOVED
from apml_plugin.checkpoints import layouts, own, report, writing
from apml_plugin.checkpoints.reading import read
from apml_plugin.losses import PerStage
from apml_plugin.losses.base import DECLARED
from apml_plugin.matching.settings import Settings
from apml_plugin.registry import LOSSES, build_loss

EVERY = [
    *({"NAME": name} for name in LOSSES.module_dict if name not in ("Schedule", "PerStage")),
    {"NAME": "Schedule", "from": "ChamferL2", "to": [{"NAME": "APML", "p_min": 0.7}, "DCD"], "start": 0, "end": 9},
    {"coarse": "ChamferL1", "fine": "APML"},
]
ASKED = """
import sys
{}
before = [m for m in sys.modules if m.startswith("apml_plugin.losses")]
found = torch.load(sys.argv[1])["hyper_parameters"]
print(before, found["loss"].describe(), found["kind"].__name__)
"""


def saved(path: Path, loss: object) -> Path:
    state = {"layer.weight": torch.ones(2, 2)}
    torch.save({"state_dict": state, "epoch": 3, "hyper_parameters": {"loss": loss, "kind": APML, "lr": 0.1}}, path)
    return path


def test_all_losses_and_no_more_are_admitted() -> None:
    classes = own.classes()
    listed = {f"{module}.{name}" for module in classes.keys() - MOVED.keys() for name in classes[module]}
    declared = {f"{cls.__module__}.{cls.__qualname__}" for cls in DECLARED.values()}
    assert listed == declared | {f"{module}.{name}" for module, names in own.PARTS.items() for name in names}


@pytest.mark.parametrize("config", EVERY, ids=str)
def test_every_loss_is_read_by_default_and_by_the_reader(config: dict, tmp_path: Path) -> None:
    loss = build_loss(config)
    path = saved(tmp_path / "a.ckpt", loss)
    found = torch.load(path, weights_only=True)["hyper_parameters"]
    assert repr(found["loss"]) == repr(loss)
    assert type(found["loss"]) is type(loss)
    assert found["kind"] is APML
    told = read(path)
    assert told.value["hyper_parameters"]["kind"] == "apml_plugin.losses.apml.APML"
    shown = json.dumps(told.value["hyper_parameters"])
    assert isinstance(loss, PerStage) or f'"NAME": "{type(loss).__name__}"' in shown


@pytest.mark.parametrize(
    ("name", "old"),
    [
        ("DCD", "apml_plugin.losses.density"),
        ("InfoCD", "apml_plugin.losses.contrastive"),
        ("HyperCD", "apml_plugin.losses.hyperbolic"),
        ("Hausdorff", "apml_plugin.losses.hausdorff"),
        ("Sinkhorn", "apml_plugin.losses.geom.modules"),
        ("Energy", "apml_plugin.losses.geom.modules"),
        ("HausdorffDivergence", "apml_plugin.losses.geom.modules"),
    ],
)
@pytest.mark.parametrize("weights_only", [True, False])
def test_a_loss_saved_before_its_module_moved_is_read(
    name: str, old: str, weights_only: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = build_loss(name)
    monkeypatch.setitem(sys.modules, old, sys.modules[type(loss).__module__])
    monkeypatch.setattr(type(loss), "__module__", old)
    path = saved(tmp_path / "a.ckpt", loss)
    monkeypatch.undo()
    with warnings.catch_warnings():
        warnings.simplefilter("error" if weights_only else "ignore")
        found = torch.load(path, weights_only=weights_only)["hyper_parameters"]["loss"]
    assert type(found) is type(loss)
    assert repr(found) == repr(loss)
    assert f'"NAME": "{name}"' in json.dumps(read(path).value["hyper_parameters"])


def test_it_still_computes(tmp_path: Path) -> None:
    pred, gt = torch.rand(2, 20, 3), torch.rand(2, 20, 3)
    loss = build_loss({"NAME": "Schedule", "from": "ChamferL2", "to": ["APML", "DCD"], "start": 0, "end": 0})
    found = torch.load(saved(tmp_path / "a.ckpt", loss), weights_only=True)["hyper_parameters"]["loss"]
    assert found(pred, gt) == loss(pred, gt)
    assert found.last.losses[0].settings == Settings()


@pytest.mark.parametrize("order", ["import apml_plugin, torch", "import torch, apml_plugin"])
def test_a_bare_import_is_enough_and_imports_no_loss(order: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.ckpt", APML(p_min=0.75))
    command = [sys.executable, "-c", ASKED.format(order), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[] APML(p_min=0.75")
    assert done.stdout.endswith(" APML\n")
    asked = "import sys, apml_plugin; print([m for m in ('torch', 'numpy', 'yaml') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", asked], text=True, cwd=tmp_path) == "[]\n"


@pytest.mark.parametrize("other", [torch.nn.Linear(2, 2), torch.nn.Sequential(), LOSSES, build_loss, json.loads])
def test_nothing_else_becomes_loadable(other: object, tmp_path: Path) -> None:
    torch.save({"x": getattr(other, "__class__", other) if other is LOSSES else other}, tmp_path / "a.pth")
    with pytest.raises(Exception, match="Weights only load failed"):
        torch.load(tmp_path / "a.pth", weights_only=True)


def test_inspect_and_convert_give_plain_values(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.ckpt", build_loss(["APML", {"NAME": "ChamferL1", "weight": 0.5}]))
    told = read(path)
    found = layouts.take_apart(told.value)
    assert report.report(path, told, found)["other_keys"] == ["epoch", "hyper_parameters"]
    assert writing.convert(found, tmp_path / "b.pth") == []
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        plain = torch.load(tmp_path / "b.pth", weights_only=True)["hyper_parameters"]
    finally:
        torch.serialization.add_safe_globals(before)
    assert plain["loss"]["losses"][0]["p_min"] == 0.8
    assert plain["loss"]["weights"] == [1.0, 0.5]
    assert plain["lr"] == 0.1
