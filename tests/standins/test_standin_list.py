"""The list of stand-ins, and what they say of names they do not have."""

from __future__ import annotations

import importlib

import pytest

from apml_plugin.standins import JUST_IN_TIME, PROBES, STANDINS
from apml_plugin.standins.absent import absent


@pytest.mark.parametrize("name", PROBES)
def test_each_stand_in_has_what_the_real_one_is_probed_for(name):
    for module, attributes in PROBES[name].items():
        found = importlib.import_module(f"apml_plugin.standins.{module}")
        assert all(hasattr(found, attribute) for attribute in attributes)


def test_the_lists_speak_of_stand_ins():
    assert set(JUST_IN_TIME) <= set(STANDINS) == set(PROBES)


def test_what_is_not_there_says_so():
    ask = absent("open3d.io", "Install the real one: pip install open3d")
    with pytest.raises(AttributeError, match=r"open3d\.io\.read_image is not in the stand-in for open3d\. Install"):
        ask("read_image")
    with pytest.raises(AttributeError, match=r"^__path__$"):
        ask("__path__")


def test_a_writer_without_tensorboard_records_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(importlib.import_module("sys").modules, "torch.utils.tensorboard", None)
    module = importlib.reload(importlib.import_module("apml_plugin.standins.tensorboardX"))
    with module.SummaryWriter(str(tmp_path / "log")) as writer:
        writer.add_scalar("Loss/Epoch", 1.0, 0)
        writer.add_image("cloud", None, 0, dataformats="HWC")
        writer.close()
        with pytest.raises(AttributeError, match="read_all is not in the stand-in"):
            _ = writer.read_all
    assert writer.logdir == str(tmp_path / "log")
    assert not (tmp_path / "log").exists()


def test_transforms_one_after_another():
    from apml_plugin.standins import torchvision

    assert torchvision.transforms.Compose([lambda v: v + 1, lambda v: v * 10])(2) == 30
    with pytest.raises(AttributeError, match="pip install torchvision"):
        _ = torchvision.models
