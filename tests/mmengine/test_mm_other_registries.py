"""Our losses in other projects' registries: children of MMEngine's, mmcv's kind, and MMDetection3D's own."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope, Registry
from torch import nn

from apml_plugin import APML, LOSSES
from apml_plugin.errors import HostError, LossArgumentError, LossValueError, UnknownLossError
from apml_plugin.hosts.mmengine import register, register_into
from apml_plugin.hosts.mmengine.adapters import APMLDistance, PackedLoss
from apml_plugin.losses import WeightedSum


class OldRegistry:
    """A registry with the interface of mmcv 1, which Pointcept keeps a copy of: classes alone, errors reworded."""

    def __init__(self, name: str) -> None:
        self.name, self.module_dict = name, {}

    def register_module(self, name: str | None = None, force: bool = False, module: type | None = None) -> Any:
        if module is None:
            return lambda cls: self.register_module(name, force, cls)
        if not inspect.isclass(module):
            raise TypeError(f"module must be a class, but got {type(module)}")
        if not force and name in self.module_dict:
            raise KeyError(f"{name} is already registered in {self.name}")
        self.module_dict[name or module.__name__] = module
        return module

    def build(self, cfg: dict[str, Any]) -> Any:
        arguments = dict(cfg)
        cls = self.module_dict[arguments.pop("type")]
        try:
            return cls(**arguments)
        except Exception as error:
            raise type(error)(f"{cls.__name__}: {error}") from None


@pytest.fixture
def below():
    """A registry of another project below MMEngine's MODELS, as MMDetection3D's is."""
    registry = Registry("model", parent=MODELS, scope="below_for_apml")
    yield registry
    del MODELS.children["below_for_apml"]


@pytest.mark.parametrize("name", ["APML", "apml.APML"])
@pytest.mark.parametrize("scope", ["mmengine", "below_for_apml", "apml"])
def test_the_names_are_found_under_every_default_scope(name: str, scope: str, below) -> None:
    cfg = dict(type=name, p_min=0.7)
    with DefaultScope.overwrite_default_scope(scope):
        assert type(MODELS.build(cfg)) is APML
        assert type(below.build(cfg)) is APML
        assert type(MODELS.build(dict(type="PackedLoss", loss=cfg)).loss) is APML
        model = MODELS.build(dict(type="apml.CompletionModel", net=dict(type="apml.PCN", num_pred=32), loss=cfg))
    assert model.criterion.settings.p_min == 0.7


def test_a_scope_or_a_prefix_reaches_a_name_that_is_hidden(below) -> None:
    below.register_module(name="APML", module=nn.MSELoss)
    with pytest.raises(HostError, match="'APML' is taken"):
        register_into(below)
    assert list(below.module_dict) == ["APML"]
    assert "PointAPML" in register_into(below, prefix="Point")
    assert register_into(below, prefix="Point") == []
    with DefaultScope.overwrite_default_scope("below_for_apml"):  # as a config of that project says
        assert type(below.build(dict(type="APML"))) is nn.MSELoss
        assert type(below.build(dict(type="apml.APML"))) is APML
        assert type(below.build(dict(type="PointAPML"))) is APML


def test_a_registry_of_mmcvs_kind_builds_every_loss() -> None:
    theirs = OldRegistry("losses")
    assert set(register_into(theirs)) == {*LOSSES.module_dict, "APMLDistance", "PackedLoss"}
    assert register_into(theirs) == []
    pred, gt = torch.rand(2, 20, 3), torch.rand(2, 30, 3)
    built = theirs.build(dict(type="APML", reduction="mean"))
    torch.testing.assert_close(built(pred, gt), APML(reduction="mean")(pred, gt))
    schedule = theirs.build(dict(type="Schedule", first="ChamferL1", last=dict(type="APML")))
    assert type(schedule.last) is APML
    assert type(theirs.build(dict(type="PackedLoss", loss="ChamferL2"))) is PackedLoss
    assert type(theirs.build(dict(type="APMLDistance", reduction="sum"))) is APMLDistance


@pytest.mark.parametrize(
    ("cfg", "error", "message"),
    [
        (dict(type="APML", p_mim=0.7), LossArgumentError, "no argument 'p_mim': did you mean 'p_min'"),
        (dict(type="APML", p_min=2), LossValueError, "p_min=2"),
        (dict(type="APML", p_min="much"), LossArgumentError, "p_min='much'"),
        (dict(type="ChamferL1", p_min=0.7), LossArgumentError, "ChamferL1 takes no argument 'p_min'"),
        (dict(type="Schedule", first="ChamferL2", last="APLM"), UnknownLossError, "did you mean 'APML'"),
        (dict(type="APMLDistance", mode="l2"), LossArgumentError, "no argument 'mode'"),
    ],
)
@pytest.mark.parametrize("kind", ["mmengine", "old"])
def test_errors_of_a_config_are_ours_everywhere(kind: str, cfg: dict[str, Any], error: type, message: str) -> None:
    registry: Any = MODELS
    if kind == "old":
        registry = OldRegistry("losses")
        register_into(registry)
    with pytest.raises(error, match=message):
        registry.build(cfg)


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        (dict(type="CompletionModel", net=dict(type="PCN"), los="APML"), "'los': did you mean 'loss'"),
        (dict(type="CompletionModel", net=dict(type="PCN"), loss=dict(type="APML", p_mim=1)), "'p_mim'.*'p_min'"),
    ],
)
def test_errors_of_a_model_are_ours(cfg: dict[str, Any], message: str) -> None:
    with pytest.raises(LossArgumentError, match=message):
        MODELS.build(cfg)


def test_a_weight_makes_a_sum_of_one() -> None:
    loss = MODELS.build(dict(type="ChamferL1", weight=3))
    assert type(loss) is WeightedSum
    assert loss.weights == [3]


def test_registered_classes_can_be_inherited_from() -> None:
    held = MODELS.get("APML")
    assert issubclass(held, APML)

    class Mine(held):
        pass

    assert type(Mine(p_min=0.6)) is Mine
    assert isinstance(held(0.6), APML)  # called by hand, with an argument by place
    assert register() == []


@pytest.mark.parametrize("prefix", ["point.", 3])
def test_a_prefix_that_registries_cannot_read(prefix: Any) -> None:
    with pytest.raises(LossArgumentError, match="prefix="):
        register_into(Registry("losses", scope="theirs"), prefix=prefix)


def test_mmdet3ds_own_registry_finds_the_losses() -> None:
    # Its registry imports all of its models at the first look-up, compiled ones too.
    pytest.importorskip("mmdet3d.models", reason="needs MMDetection3D", exc_type=ImportError)
    from mmdet3d.registry import MODELS as theirs

    loss = theirs.build(dict(type="APMLDistance", reduction="sum", loss_src_weight=10.0, loss_dst_weight=10.0))
    assert type(loss) is APMLDistance
    for scope in ("mmdet3d", "mmengine"):
        with DefaultScope.overwrite_default_scope(scope):
            assert type(MODELS.build(dict(type="APML"))) is type(theirs.build(dict(type="apml.APML"))) is APML
