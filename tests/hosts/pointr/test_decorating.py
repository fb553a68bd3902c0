"""The inserted decorators, after a patch and under `apml run`."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from easydict import EasyDict
from lines import imported_with_lines

from apml_plugin.errors import LossArgumentError, UnknownLossError
from apml_plugin.hooks import hoists_loss, takes_loss
from apml_plugin.hosts import guard
from apml_plugin.hosts.base import identify
from apml_plugin.hosts.pointr.attach import attached
from apml_plugin.hosts.pointr.decorating import hoist
from apml_plugin.patching import plan_apply, plan_revert, write

Importer = Callable[[str], ModuleType]


@pytest.fixture
def load(importable: tuple[Path, Importer]) -> Importer:
    return importable[1]


def config(loss: Any = "APML") -> EasyDict:
    return EasyDict(NAME="PCN", num_pred=32, loss=loss)


def test_a_builder_keeps_its_name_and_arguments(load: Importer) -> None:
    build = takes_loss(load("models").make_model)
    assert build.__name__ == "make_model"
    assert attached(build(config()))
    assert attached(build(config=config()))
    assert takes_loss(build) is build


def test_a_class_stays_the_class(load: Importer) -> None:
    pcn = load("models.PCN").PCN
    assert takes_loss(pcn) is pcn
    init = pcn.__init__
    assert takes_loss(pcn).__init__ is init
    assert attached(pcn(config()))
    assert attached(pcn(config=config()))
    assert not attached(pcn(EasyDict(NAME="PCN", num_pred=32)))
    assert pickle.loads(pickle.dumps(pcn)) is pcn


def test_objects_that_are_no_models_are_unchanged(load: Importer) -> None:
    build = takes_loss(load("datasets.build").make_dataset)
    assert type(build(EasyDict(NAME="PCN", loss="APML"))).__name__ == "PCN"


HOISTED = {
    "a name": "APML",
    "a mapping": {"NAME": "APML", "p_min": 0.9},
    "a list": ["APML", {"NAME": "ChamferL2", "weight": 0.1}],
    "stages": {"coarse": "ChamferL1", "fine": {"type": "APML"}},
}


@pytest.mark.parametrize("what", HOISTED)
def test_a_top_level_loss_reaches_the_model(load: Importer, tmp_path: Path, what: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump({"loss": HOISTED[what], "model": {"NAME": "PCN", "num_pred": 32}}))
    read = load("utils.config").load_config
    assert read(path).loss == HOISTED[what]
    config = hoists_loss(read)(path)
    assert config.model.loss == HOISTED[what]
    assert "loss" not in config
    assert not hasattr(config, "loss")
    assert attached(takes_loss(load("models").make_model)(config.model))


LEFT = {
    "weights": {"loss": {"sparse": 1.0, "dense": 0.5}, "model": {}},
    "nothing": {"loss": None, "model": {}},
    "no model": {"loss": "APML"},
    "a model that is a name": {"loss": "APML", "model": "PCN"},
    "a number": {"loss": 3, "model": {}},
}


@pytest.mark.parametrize("what", LEFT)
def test_other_configs_are_unchanged(what: str) -> None:
    before = EasyDict(LEFT[what])
    assert hoist(EasyDict(LEFT[what])) == before


def test_options_move_along() -> None:
    config = hoist({"loss": "APML", "loss_opts": {"p_min": 0.5}, "model": {"NAME": "PCN"}})
    assert config == {"model": {"NAME": "PCN", "loss": "APML", "loss_opts": {"p_min": 0.5}}}


def test_given_twice() -> None:
    assert hoist({"loss": "APML", "model": {"loss": "APML"}}) == {"model": {"loss": "APML"}}
    with pytest.raises(LossArgumentError, match=r"given twice, 'APML' at the top .* 'ChamferL1' under model"):
        hoist({"loss": "APML", "model": {"loss": "ChamferL1"}})


def test_a_misspelt_name_at_the_top_stops_the_build(load: Importer) -> None:
    config = hoist(EasyDict(loss="APLM", model={"NAME": "PCN", "num_pred": 32}))
    assert config.loss == "APLM"  # not ours: the host may still want it
    with pytest.raises(UnknownLossError):
        takes_loss(load("models").make_model)(config.model)


def test_imported_modules_get_the_loss_without_a_patch(importable: tuple[Path, Importer], tmp_path: Path) -> None:
    root, load = importable
    path = tmp_path / "x.yaml"
    path.write_text("loss: APML\nmodel: {NAME: PCN, num_pred: 32}\n")
    with imported_with_lines(root):
        build, reader = load("models.build"), load("utils.config")
        model = build.make_model(reader.load_config(path).model)
    assert len(attached(model)) == 1


def test_a_patched_clone_gets_the_loss_once(
    importable: tuple[Path, Importer], capsys: pytest.CaptureFixture[str]
) -> None:
    root, load = importable
    host = identify(root)
    write(plan_apply(root, [host.recipes[0]], host.recipes))
    with imported_with_lines(root):
        model = load("models").make_model(config())
    assert len(attached(model)) == 1
    assert capsys.readouterr().err.count("trains with") == 1


def test_the_patched_files_run(importable: tuple[Path, Importer], tmp_path: Path) -> None:
    """The real thing: patch the small codebase's files, import them, build."""
    root, load = importable
    host = identify(root)
    before = {path: path.read_bytes() for path in root.rglob("*.py")}
    write(plan_apply(host.root, [host.recipes[0], host.recipe("PCN")], host.recipes))
    path = tmp_path / "x.yaml"
    path.write_text("loss: {fine: APML}\nmodel: {NAME: PCN, num_pred: 32}\n")
    model = load("models").make_model(load("utils.config").load_config(path).model)
    assert [type(loss).__name__ for loss in attached(model)] == ["HostLoss"]
    write(plan_revert(host.root, host.recipes, host.recipes))
    assert {path: path.read_bytes() for path in before} == before


def test_a_loss_that_was_read_must_be_used(load: Importer, tmp_path: Path) -> None:
    """Where only the reader is patched, the builder would ignore the loss, and the host train with its own."""
    path = tmp_path / "x.yaml"
    path.write_text("model: {NAME: PCN, num_pred: 32}\n")
    read = hoists_loss(load("utils.config").load_config)
    read(path)
    assert not guard.state.asked
    path.write_text("loss: APML\nmodel: {NAME: PCN, num_pred: 32}\n")
    model = load("models").make_model(read(path).model)
    assert not attached(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.step()  # without a gradient: some loops do that once, and it changes nothing
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with pytest.raises(guard.Stop):
        optimizer.step()


def test_the_reader_is_written_first(host: Path) -> None:
    """A killed patch may leave the first file written and the rest not: then the run must stop, as above."""
    found = identify(host)
    assert {recipe.edits[0].name for recipe in (found.recipes[0], *found.models.values())} == {"hoists_loss"}


def test_a_wrapped_reader_keeps_its_signature(load: Importer) -> None:
    read = load("utils.config").load_config
    assert hoists_loss(read).__wrapped__ is read
