"""Forks of a host with a registry: a loss chosen by a string or called in forward, weights in `loss:`, and so on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from easydict import EasyDict
from lines import imported_with_lines

from apml_plugin.cli import main as cli
from apml_plugin.errors import HostError
from apml_plugin.functional import apml_loss
from apml_plugin.hosts.base import Clone, check_config
from apml_plugin.hosts.pointr.decorating import hoist
from apml_plugin.hosts.pointr.kind import recipe_for_all
from apml_plugin.hosts.pointr.structure import recognise
from apml_plugin.patching import check, plan_apply, plan_revert, write

Importable = tuple[Path, Callable[[str], ModuleType]]

# Chosen by a string, stops at others, and used in forward, in validation too.
MASKED = """
import torch
from torch import nn

from .build import MODELS
from {pkg}extensions.chamfer import ChamferDistanceL1, ChamferDistanceL2


@MODELS.register_module()
class Masked(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.move = nn.Linear(3, 3)
        self.loss = config.loss
        self.build_loss_func(self.loss)

    def build_loss_func(self, kind):
        if kind == "cdl1":
            self.loss_func = ChamferDistanceL1().to("cpu")
        elif kind == 'cdl2':
            self.loss_func = ChamferDistanceL2().to("cpu")
        else:
            raise NotImplementedError
            # self.loss_func = emd()

    def forward(self, xyz, gt):
        return self.loss_func(self.move(xyz), gt)
"""

# A get_loss without epoch and a penalty beside it; `loss:` at the top of its YAML holds weights.
WEIGHTED = """
import torch
from torch import nn

from .build import MODELS
from {pkg}extensions.chamfer import ChamferDistanceL1, GriddingLoss


@MODELS.register_module()
class Weighted(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.move = nn.Linear(3, 3)
        self.build_loss_func()

    def build_loss_func(self):
        self.measure = ChamferDistanceL1()
        self.penalty = GriddingLoss()

    def get_loss(self, ret, gt):
        return self.measure(ret[0], gt), self.measure(ret[1], gt)

    def forward(self, xyz):
        p = self.move(xyz)
        return p[:, ::2], p
"""


def add(root: Path, pkg: str = "") -> None:
    for name, text in (("Masked", MASKED), ("Weighted", WEIGHTED)):
        (root / "models" / f"{name}.py").write_text(text.replace("{pkg}", pkg))
    start = root / "models" / "__init__.py"
    start.write_text("from . import Masked, Weighted\n" + start.read_text())


@pytest.fixture
def build(importable: Importable, monkeypatch: pytest.MonkeyPatch) -> Callable[[EasyDict], torch.nn.Module]:
    """Builds a model of the codebase as `apml run` would have it: nothing patched, everything attached."""
    monkeypatch.delenv("APML_LOSS", raising=False)
    root, load = importable
    add(root, f"{root.name}.")

    def make(config: EasyDict) -> torch.nn.Module:
        torch.manual_seed(0)
        with imported_with_lines(root):
            return load("models").make_model(config)

    return make


def clouds() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, 16, 3, generator=generator), torch.rand(2, 24, 3, generator=generator)


def mean(pred: torch.Tensor, gt: torch.Tensor) -> torch.Tensor:
    return apml_loss(pred, gt, reduction="mean")


@pytest.mark.parametrize("where", ["mapping", "name and options", "environment"])
def test_a_loss_in_forward_chosen_by_a_string(
    where: str, build: Callable[[EasyDict], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, gt = clouds()
    own = build(EasyDict(NAME="Masked", loss="cdl1"))(x, gt)
    given: dict[str, Any] = {
        "mapping": {"loss": {"NAME": "APML", "reduction": "mean"}},
        "name and options": {"loss": "APML", "loss_opts": {"reduction": "mean"}},
        "environment": {"loss": "cdl1"},
    }[where]
    if where == "environment":
        monkeypatch.setenv("APML_LOSS", "{NAME: APML, reduction: mean}")
    model = build(EasyDict(NAME="Masked", **given))
    torch.testing.assert_close(model(x, gt), mean(model.move(x), gt))
    with torch.no_grad():  # validation's call is the host's own
        torch.testing.assert_close(model(x, gt), own)
    assert list(model.state_dict()) == ["move.weight", "move.bias"]


def test_an_unknown_string_raises_the_hosts_error(build: Callable[[EasyDict], Any]) -> None:
    with pytest.raises(NotImplementedError):
        build(EasyDict(NAME="Masked", loss="cdl3"))


def test_weights_under_loss_stay_and_the_models_loss_is_ours(build: Callable[[EasyDict], Any]) -> None:
    weights = {"fine_weight": 1.0, "penalty_weight": 0.1}
    config = hoist(EasyDict(loss=weights, model={"NAME": "Weighted", "loss": {"NAME": "APML", "reduction": "mean"}}))
    assert config.loss == weights
    model = build(config.model)
    x, gt = clouds()
    ret = model(x)
    coarse, fine = model.get_loss(ret, gt)
    torch.testing.assert_close(coarse, mean(ret[0], gt))
    torch.testing.assert_close(fine, mean(ret[1], gt))
    assert type(model.penalty).__name__ == "GriddingLoss"


def test_the_environment_reaches_a_model_whose_yaml_names_no_loss(
    build: Callable[[EasyDict], Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("APML_LOSS", "APML")
    build(EasyDict(NAME="Weighted"))
    assert "(from APML_LOSS); validation keeps" in capsys.readouterr().err


def test_a_patch_lets_the_name_through_and_is_reverted(host: Path) -> None:
    add(host)
    before = {path: path.read_bytes() for path in host.rglob("*.py")}
    found = recognise(Clone(host).project)
    recipe = recipe_for_all(found)
    assert [edit.file for edit in recipe.edits] == ["utils/config.py", "models/build.py", "models/Masked.py"]
    write(plan_apply(host, [recipe], [recipe]))
    text = (host / "models" / "Masked.py").read_text()
    assert '    @lets_loss_through("kind", "cdl1")  # apml-plugin\n    def build_loss_func' in text
    assert check(host, [recipe_for_all(recognise(Clone(host).project))]) == ("all models",)
    write(plan_revert(host, [recipe], [recipe]))
    assert {path: path.read_bytes() for path in host.rglob("*.py")} == before


def test_one_models_patch_shares_its_line_with_the_one_for_all(host: Path) -> None:
    add(host)
    before = {path: path.read_bytes() for path in host.rglob("*.py")}
    assert cli(["patch", str(host), "--model", "Masked"]) == 0
    assert cli(["patch", str(host)]) == 0
    assert cli(["patch", str(host), "--model", "Weighted"]) == 0
    assert cli(["patch", str(host), "--revert", "--model", "Masked"]) == 0
    assert "lets_loss_through" in (host / "models" / "Masked.py").read_text()  # the patch for all needs it
    assert cli(["patch", str(host), "--revert"]) == 0
    assert {path: path.read_bytes() for path in host.rglob("*.py")} == before


def test_check_knows_a_string_that_the_model_reads(host: Path, tmp_path: Path) -> None:
    add(host)
    config = host / "masked.yaml"
    config.write_text("model: {NAME: Masked, loss: cdl2}\n")
    found = check_config(config, host)
    assert not found.error
    assert "'cdl2', which Masked reads itself" in found.found_at


def test_parts_in_deeper_folders_are_found(host: Path) -> None:
    (host / "src" / "inner").mkdir(parents=True)
    for name in ("models", "utils"):
        shutil.move(host / name, host / "src" / "inner" / name)
    assert recognise(Clone(host).project).builder.file == "src/inner/models/build.py"


def test_a_missing_folder_does_not_matter(host: Path) -> None:
    shutil.rmtree(host / "datasets")
    shutil.rmtree(host / "extensions")
    assert len(recognise(Clone(host).project).models) == 8


def test_a_syntax_error_in_the_builder_comes_first(host: Path) -> None:
    (host / "models" / "build.py").write_text("def make_model(:\n")
    with pytest.raises(HostError, match=r"^models/build\.py, line 1 is not valid Python"):
        recognise(Clone(host).project)


def test_explain_reports_an_import_of_a_missing_folder(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (host / "runner.py").write_text("from models import make_model\n")
    assert cli(["patch", str(host), "--explain"]) == 0
    assert "broken in the host" not in capsys.readouterr().out
    shutil.move(host / "models", host / "nets")
    assert cli(["patch", str(host), "--explain"]) == 0
    assert "runner.py:1 imports make_model from models, which is not in this clone" in capsys.readouterr().out
