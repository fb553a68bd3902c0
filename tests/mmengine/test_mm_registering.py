"""What importing the MMEngine host registers, and what it does not."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS, Registry
from torch import nn

from apml_plugin import APML, LOSSES, ChamferL2
from apml_plugin.errors import HostError, LossArgumentError
from apml_plugin.hosts.mmengine import register, register_into
from apml_plugin.losses import Schedule
from apml_plugin.models import PCN


def test_every_loss_and_every_part_is_found_by_its_name() -> None:
    for name in (*LOSSES.module_dict, "PCN", "FoldingNet", "CompletionModel"):
        assert MODELS.get(name) is not None
    assert DATASETS.get("CompletionShapes") is not None
    assert METRICS.get("CompletionMetric") is not None
    assert HOOKS.get("LossEpochHook") is not None


@pytest.mark.parametrize("name", ["APML", "apml.APML", "mmengine.APML", "apml_plugin.losses.apml.APML"])
@pytest.mark.parametrize("kind", [dict, ConfigDict])
def test_a_loss_builds_from_models_with_and_without_a_scope(name: str, kind: type) -> None:
    loss = MODELS.build(kind(type=name, p_min=0.7, reduction="mean"))
    assert type(loss) is APML
    assert (loss.settings.p_min, loss.reduction) == (0.7, "mean")
    pred, gt = torch.rand(2, 20, 3), torch.rand(2, 30, 3)
    torch.testing.assert_close(loss(pred, gt), APML(p_min=0.7, reduction="mean")(pred, gt))


def test_registries_below_mmengines_find_our_names() -> None:
    below = Registry("model", parent=MODELS, scope="below_for_apml")
    try:
        assert type(below.build(dict(type="APML"))) is APML
        assert type(below.build(dict(type="apml.APML"))) is APML
    finally:
        del MODELS.children["below_for_apml"]


@pytest.mark.parametrize("ends", [("first", "last"), ("from", "to")])
def test_a_schedule_builds_from_models(ends: tuple[str, str]) -> None:
    cfg = {"type": "Schedule", ends[0]: "ChamferL2", ends[1]: {"type": "APML", "p_min": 0.7}, "start": 1, "end": 3}
    loss = MODELS.build(cfg)
    assert isinstance(loss, Schedule)
    assert isinstance(loss.first, ChamferL2)
    assert loss.last.settings.p_min == 0.7
    assert (loss.start, loss.end) == (1, 3)


def test_a_schedule_without_an_end_says_how_to_write_one() -> None:
    with pytest.raises(
        LossArgumentError, match=r"missing 'to'; write {NAME: Schedule, from: ..., to: ...} \(or first, last\)"
    ):
        MODELS.build(dict(type="Schedule", first="ChamferL2"))


def test_a_second_call_adds_nothing() -> None:
    before = dict(MODELS.module_dict)
    assert register() == []
    assert MODELS.module_dict == before


def test_a_loss_of_the_users_own_is_added_by_the_next_call(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(ChamferL2):
        pass

    monkeypatch.setitem(LOSSES.module_dict, "MineForMMEngine", Mine)
    try:
        assert register() == ["MineForMMEngine"]
        assert isinstance(MODELS.build(dict(type="apml.MineForMMEngine")), Mine)
    finally:
        del MODELS.module_dict["MineForMMEngine"]
        del MODELS.children["apml"].module_dict["MineForMMEngine"]


def test_a_name_taken_by_another_project_is_an_error_and_nothing_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stranger(nn.Module):
        pass

    monkeypatch.setitem(MODELS.module_dict, "PCN", Stranger)
    monkeypatch.delitem(MODELS.module_dict, "APML")
    monkeypatch.delitem(HOOKS.module_dict, "LossEpochHook")
    with pytest.raises(HostError) as caught:
        register()
    assert "Stranger" in str(caught.value)
    assert f"{PCN.__module__}.PCN" in str(caught.value)
    assert MODELS.module_dict["PCN"] is Stranger
    assert "APML" not in MODELS.module_dict
    assert "LossEpochHook" not in HOOKS.module_dict


def test_a_registry_of_another_project_takes_the_losses_once() -> None:
    theirs = Registry("losses", scope="theirs")
    added = register_into(theirs)
    assert set(added) == {*LOSSES.module_dict, "APMLDistance", "PackedLoss"}
    assert register_into(theirs) == []
    assert isinstance(theirs.build(dict(type="APML")), APML)
    # Registries of mmcv's older kind accept classes alone.
    assert all(isinstance(entry, type) for entry in theirs.module_dict.values())


def test_a_taken_name_in_another_projects_registry_adds_nothing() -> None:
    theirs = Registry("losses", scope="theirs")
    theirs.register_module(name="ChamferL2", module=nn.MSELoss)
    with pytest.raises(HostError, match=r"'ChamferL2' is taken in the 'losses' registry by torch\S+MSELoss"):
        register_into(theirs)
    assert list(theirs.module_dict) == ["ChamferL2"]


def test_an_object_that_is_not_a_registry_is_rejected() -> None:
    with pytest.raises(HostError, match="is not a registry"):
        register_into({})
