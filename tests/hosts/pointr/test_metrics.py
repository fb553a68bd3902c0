"""`metrics:` of a YAML puts our metrics behind those of a host's table, as the host itself reads it."""

import importlib
import itertools
import sys

import pytest
import torch
from easydict import EasyDict

from apml_plugin.errors import HostError, LossArgumentError
from apml_plugin.hooks import hoists_loss
from apml_plugin.metrics import cd_l1, dcd, emd

TABLE = """
class Scores:
    ITEMS = [
        {"name": "CDL1", "enabled": True, "eval_func": "cls._own", "is_greater_better": False, "init_value": 32767},
    ]

    @classmethod
    def names(cls):
        return [item["name"] for item in cls.ITEMS if item["enabled"]]

    @classmethod
    def get(cls, pred, gt):
        values = []
        for item in cls.ITEMS:
            values.append(eval(item["eval_func"])(pred, gt))
        return values

    @classmethod
    def _own(cls, pred, gt):
        return pred.new_tensor(7.0)
"""

_COUNT = itertools.count()


@pytest.fixture
def table(tmp_path, monkeypatch):
    name = f"apml_scores_{next(_COUNT)}"
    (tmp_path / f"{name}.py").write_text(TABLE)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield importlib.import_module(name).Scores
    del sys.modules[name]


def read(**config):
    return hoists_loss(lambda: EasyDict(model={"NAME": "PCN"}, **config))()


def test_our_metrics_follow_the_hosts(table, capsys):
    read(metrics=["EMD", "DCD", "CDL1"])
    assert table.names() == ["CDL1", "EMD", "DCD"]
    assert "Scores also measures EMD, DCD, after the host's own" in capsys.readouterr().err
    pred, gt = torch.rand(2, 50, 3), torch.rand(2, 60, 3)
    own, ours, density = table.get(pred, gt)
    assert own.item() == 7
    chosen = [c[:, torch.randperm(c.shape[1], generator=torch.Generator().manual_seed(0))[:50]] for c in (pred, gt)]
    assert ours.item() == pytest.approx(1000 * emd(*chosen).mean().item(), rel=1e-5)
    assert density.item() == pytest.approx(dcd(pred, gt).mean().item(), rel=1e-5)
    read(metrics=["EMD"])
    assert table.names() == ["CDL1", "EMD", "DCD"]


def test_one_name_and_the_hosts_scale(table):
    table.ITEMS.clear()
    table.ITEMS.append({"name": "F", "enabled": True, "eval_func": "cls._own", "init_value": 0})
    read(metrics="CDL1")
    pred, gt = torch.rand(1, 20, 3), torch.rand(1, 20, 3)
    assert table.get(pred, gt)[1].item() == pytest.approx(1000 * cd_l1(pred, gt).item(), rel=1e-5)


@pytest.mark.parametrize("value", [None, [], {"EMD": 1}, ["accuracy"], 3])
def test_what_is_not_ours_stays(value, table):
    assert read(metrics=value).metrics == value
    assert table.names() == ["CDL1"]


def test_a_misspelt_name_and_a_host_without_a_table_are_errors(table):
    with pytest.raises(LossArgumentError, match=r"no metric is called 'Uniformty'.*did you mean 'Uniformity'"):
        read(metrics=["EMD", "Uniformty"])
    assert table.names() == ["CDL1"]
    table.ITEMS = None
    with pytest.raises(HostError, match="no class with a table ITEMS"):
        read(metrics=["EMD"])
