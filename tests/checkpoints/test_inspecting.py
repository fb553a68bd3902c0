"""What `apml checkpoint inspect` tells, alone and against a host's model."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints.making import old_file, weights

import apml_plugin
from apml_plugin.checkpoints import comparing
from apml_plugin.cli import main
from apml_plugin.hosts.base import Clone
from apml_plugin.hosts.pointr.structure import recognise

HOST = Path(apml_plugin.__file__).parent / "studies" / "demo" / "host"
CONFIG = Path("cfgs/PCN_models/PCN.yaml")


def inspect(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> str:
    assert main(["checkpoint", "inspect", *map(str, words)]) == code
    return capsys.readouterr().out


def test_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = json.loads(inspect(capsys, old_file(tmp_path / "old.pth"), "--json"))
    assert told["format"] == "torch.save (zip)"
    assert not told["loads_by_default"]
    assert told["layout"] == "base_model"
    assert told["module_prefix"] == "7 of 7 keys"
    assert told["epoch"] == 7
    assert told["metrics"]["CDL1"] == 10.0
    assert told["best_metrics"]["CDL1"] == 9.0
    assert told["optimizer"]
    assert told["parameters"] == 3 * 4 + 4 + 4 + 4
    assert told["statistics"] == 4 + 4 + 1
    assert told["dtypes"] == {"float32": 6, "int64": 1}
    assert told["shapes"]["0.weight"] == [[4, 3], "float32"]
    text = inspect(capsys, tmp_path / "old.pth")
    assert "read:        rejected by PyTorch's default; read safely with these as plain values: utils.metrics" in text
    assert "weights:     7 tensors (6 float32, 1 int64), 24 parameters, 9 running statistics" in text
    assert "best:        F-Score 0.75, CDL1 9," in text
    assert "  0.weight  4x3 float32" in text


def test_what_a_first_reader_should_notice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made: dict[str, Any] = {"a.module.b": torch.tensor([1.0, float("nan")]), "note": "not a tensor"}
    made |= {f"layer{i}": torch.ones(1) for i in range(20)}
    torch.save({"model": made}, tmp_path / "a.pth")
    text = inspect(capsys, tmp_path / "a.pth")
    assert "NaN or infinity in a.module.b" in text
    assert "`module.` inside a.module.b" in text
    assert "no tensors:  note" in text
    assert "and 9 more (--keys shows all)" in text
    assert "layer19" in inspect(capsys, tmp_path / "a.pth", "--keys")


def test_a_view_that_repeats_one_number_takes_no_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"a": torch.ones(1).expand(1 << 40)}, tmp_path / "a.pth")
    assert json.loads(inspect(capsys, tmp_path / "a.pth", "--json"))["parameters"] == 1 << 40


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small host."""
    return Path(shutil.copytree(HOST, tmp_path_factory.mktemp("host") / "clone"))


@pytest.fixture(scope="module")
def built(clone: Path) -> dict[str, list[int]]:
    """Keys and shapes of its PCN, from a process that built it; nothing of it was imported here."""
    shapes = comparing._built(recognise(Clone(clone).project), clone / CONFIG)
    assert not [name for name, module in sys.modules.items() if str(clone) in str(getattr(module, "__file__", ""))]
    return shapes


def test_against_a_hosts_model(
    clone: Path,
    built: dict[str, list[int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(comparing, "_built", lambda host, config: built)
    config, state = clone / CONFIG, {key: torch.zeros(shape) for key, shape in built.items()}
    assert len(state) > 10
    torch.save({"base_model": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "a.pth")
    text = inspect(capsys, tmp_path / "a.pth", "--config", config)
    assert f"model:       PCN of {clone} accepts it ({len(state)} tensors)" in text

    first, second = list(state)[:2]
    state["more"] = state.pop(first)
    state[second] = torch.zeros(1, 2, 3)
    torch.save({"base_model": state}, tmp_path / "b.pth")
    told = inspect(capsys, tmp_path / "b.pth", "--config", config, "--host", clone, "--json", code=1)
    model = json.loads(told)["model"]
    assert (model["missing"], model["unexpected"]) == ([first], ["more"])
    assert [entry[:2] for entry in model["wrong_shape"]] == [[second, [1, 2, 3]]]
    text = inspect(capsys, tmp_path / "b.pth", "--config", config, code=1)
    assert f"  missing: {first}\n  unexpected: more\n  wrong shape: {second} is [1, 2, 3], the model's [" in text


def test_why_a_host_cannot_be_compared_with(clone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": weights()}, tmp_path / "a.pth")
    config = tmp_path / "a.yaml"
    config.write_text("model: {NAME: Nobody}\n")
    text = inspect(capsys, tmp_path / "a.pth", "--config", config, "--host", clone, code=1)
    assert "cannot build this model here (" in text
    assert "Nobody" in text
    text = inspect(capsys, tmp_path / "a.pth", "--config", config, "--host", tmp_path / "nowhere", code=1)
    assert "not compared: " in text
    config.write_text("dataset: {}\n")
    text = inspect(capsys, tmp_path / "a.pth", "--config", config, "--host", clone, code=1)
    assert "there is no model: with a NAME:" in text
    assert "layout:      weights under 'model'" in text
