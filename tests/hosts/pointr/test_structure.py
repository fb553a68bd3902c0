"""Recognising a PoinTr-style host by its structure."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from apml_plugin.errors import HostError
from apml_plugin.hosts.base import Clone, around
from apml_plugin.hosts.pointr.structure import recognise


def test_finds_builder_reader_and_models(host: Path) -> None:
    found = recognise(Clone(host).project)
    assert str(found.builder) == "models/build.py: make_model"
    assert str(found.reader) == "utils/config.py: load_config"
    assert {m.name: [(s.attribute, s.stages, s.kept) for s in m.sites] for m in found.models} == {
        "AdaPoinTr": [("loss_func", ("denoise", "coarse", "fine"), ("denoise",))],
        "FoldingNet": [("loss_func", ("coarse", "fine"), ())],
        "Fork": [("criterion", ("fine", "coarse", "stage2"), ())],
        "GRNet": [("loss_func_1", ("coarse", "fine"), ())],
        "PCN": [("loss_func", ("coarse", "fine"), ())],
        "PoinTr": [("loss_func", ("coarse", "fine"), ())],
        "SnowFlakeNet": [("loss_func_CD", ("coarse", "p1", "p2", "fine"), ())],
        "TopNet": [("loss_func", ("coarse", "fine"), ())],
    }


def test_the_folder_name_does_not_matter_but_the_parts_do(host: Path) -> None:
    renamed = host.rename(host.parent / "something else")
    assert recognise(Clone(renamed).project).root == renamed
    (renamed / "utils" / "config.py").unlink()
    with pytest.raises(HostError, match=r"loads it into an EasyDict: not found") as caught:
        recognise(Clone(renamed).project)
    assert "registry" not in str(caught.value)


def test_no_host_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("import yaml\n")
    with pytest.raises(HostError, match=r"Looked through 1 Python files for a registry .*main\.py\)$"):
        recognise(Clone(tmp_path).project)
    with pytest.raises(HostError, match=r"is not a folder"):
        recognise(Clone(tmp_path / "missing").project)


def test_the_folder_above_a_clone_gets_a_hint(host: Path) -> None:
    with pytest.raises(HostError, match=r"; try clone in it"):
        recognise(Clone(host.parent).project)


def test_a_vendored_copy_is_not_the_host(host: Path) -> None:
    shutil.copytree(host, host / "third_party" / "copy")
    assert str(recognise(Clone(host).project).builder) == "models/build.py: make_model"


def test_two_equal_candidates_are_rejected(host: Path) -> None:
    shutil.copytree(host / "models", host / "models2")
    with pytest.raises(HostError, match=r"cannot tell .* models/build.py: make_model, models2/build.py: make_model"):
        recognise(Clone(host).project)


def test_a_file_that_does_not_parse_is_named(host: Path) -> None:
    builder = host / "models" / "build.py"
    builder.write_text("<<<<<<< yours\n" + builder.read_text())
    with pytest.raises(HostError, match=r"^models/build\.py, line \d+ is not valid Python .*so it was not looked at"):
        recognise(Clone(host).project)


def test_other_readers_of_yaml_are_not_the_reader(host: Path) -> None:
    (host / "kitti.py").write_text(
        "import yaml\nfrom easydict import EasyDict\n\ndef cars():\n"
        "    with open('fixed.yaml') as stream:\n        return EasyDict(yaml.safe_load(stream))\n"
    )
    assert recognise(Clone(host).project).reader.name == "load_config"


def test_a_fork_that_changed_a_known_class_is_read_again(host: Path) -> None:
    model = host / "models" / "PCN.py"
    text = model.read_text().replace("self.loss_func(ret[0], gt),", "self.loss_func(ret[0], gt), 0,")
    model.write_text(text.replace("loss_func(ret[1], gt)", "loss_func(ret[1], gt) + self.loss_func(ret[2], gt)"))
    (pcn,) = [found for found in recognise(Clone(host).project).models if found.name == "PCN"]
    assert pcn.stages == ("coarse", "stage2", "fine")


def test_find_root_from_a_config_inside(host: Path, tmp_path: Path) -> None:
    inside = host / "cfgs" / "sub" / "x.yaml"
    inside.parent.mkdir(parents=True)
    inside.touch()
    found = around(inside)
    assert found is not None
    assert found.root == host.resolve()
    assert around(tmp_path / "elsewhere.yaml") is None


def test_recognising_imports_neither_torch_nor_the_host() -> None:
    import subprocess
    import sys

    code = "import sys, apml_plugin.hosts.pointr; print('torch' in sys.modules, 'mmengine' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split() == ["False"] * 2
