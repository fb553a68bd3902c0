"""The table of stand-ins: each has what the real one is probed for, in every place, and names what it lacks."""

from __future__ import annotations

import re
import sys

import pytest
from standins.serving import served

from apml_plugin.standins import JUST_IN_TIME, STANDINS


@pytest.mark.parametrize("name", STANDINS)
def test_each_stand_in_has_what_hosts_need(name: str) -> None:
    module = served(name)
    assert module.__name__ == name
    for path, attributes in STANDINS[name].needs.items():
        place = module
        for part in path.split(".")[1:]:
            place = getattr(place, part)
        assert all(hasattr(place, attribute) for attribute in attributes)
    for submodule in STANDINS[name].submodules:
        assert hasattr(module, submodule.rpartition(".")[2])
    message = f"{name}.nothing_such is not in the stand-in for {name}. {STANDINS[name].remedy}"
    with pytest.raises(AttributeError, match=f"^{re.escape(message)}$"):
        _ = module.nothing_such
    with pytest.raises(AttributeError, match=r"^__nothing__$"):
        _ = module.__nothing__


def test_a_function_of_a_submodules_name_stays() -> None:
    assert served("pytorch3d").ops.ball_query.__name__ == "ball_query"
    assert set(JUST_IN_TIME) <= set(STANDINS)


def test_a_writer_without_tensorboard_records_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    module = served("tensorboardX")
    with module.SummaryWriter(str(tmp_path / "log")) as writer:
        writer.add_scalar("Loss/Epoch", 1.0, 0)
        writer.add_image("cloud", None, 0, dataformats="HWC")
        writer.close()
        with pytest.raises(AttributeError, match="read_all is not in the stand-in"):
            _ = writer.read_all
    assert writer.logdir == str(tmp_path / "log")
    assert not (tmp_path / "log").exists()


def test_transforms_one_after_another():
    assert served("torchvision").transforms.Compose([lambda v: v + 1, lambda v: v * 10])(2) == 30
