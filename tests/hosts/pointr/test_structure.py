"""Recognising a PoinTr-style host by its structure."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from apml_plugin.cli import main
from apml_plugin.errors import AmbiguousError, HostError
from apml_plugin.hosts.base import Clone, around, identify
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
    with pytest.raises(HostError, match=r"Looked through 1 Python file for a registry .*main\.py\)$"):
        recognise(Clone(tmp_path).project)
    with pytest.raises(HostError, match=r"is not a folder"):
        recognise(Clone(tmp_path / "missing").project)


def test_the_folder_above_a_clone_gets_a_hint(host: Path) -> None:
    with pytest.raises(HostError, match=r"; try clone in it"):
        recognise(Clone(host.parent).project)


def test_a_vendored_copy_is_not_the_host(host: Path) -> None:
    shutil.copytree(host, host / "third_party" / "copy")
    assert str(recognise(Clone(host).project).builder) == "models/build.py: make_model"


def test_two_equal_candidates_are_an_error_of_every_command(
    host: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host of another kind may be found in their place, which would train with Chamfer."""
    shutil.copytree(host / "models", host / "models2")
    (host / "main.py").write_text("import models\nimport models2\n")
    words = (
        "cannot tell which of these builds the models: models/build.py:6 make_model, models2/build.py:6 make_model. "
        "Move the one that is not used out of the clone, or rename it to end in .bak"
    )
    with pytest.raises(AmbiguousError) as caught:
        identify(host)
    assert str(caught.value) == words
    config = host / "c.yaml"
    config.write_text("model: {NAME: PCN, num_pred: 64}\nloss: DCD\n")
    monkeypatch.chdir(host)
    for command in (
        ["patch", "."],
        ["check", "c.yaml"],
        ["run", "main.py", "--config", "c.yaml"],
        ["run", "--loss", "APML", "main.py"],
    ):
        assert main(command) == 1
        assert capsys.readouterr().err == f"error: {words}\n"


@pytest.mark.parametrize("file", ["models/build.py", "utils/config.py"])
def test_a_backup_that_nothing_imports_is_no_candidate(host: Path, file: str) -> None:
    expected = recognise(Clone(host).project)
    shutil.copy(host / file, (host / file).with_name("a_backup.py"))
    (host / "main.py").write_text("import models\nfrom utils.config import load_config\n")
    found = recognise(Clone(host).project)
    assert (found.builder, found.reader) == (expected.builder, expected.reader)
    shutil.copytree((host / file).parent, host / "a_backup", dirs_exist_ok=True)  # its files import each other
    found = recognise(Clone(host).project)
    assert (found.builder, found.reader) == (expected.builder, expected.reader)


def test_a_link_within_the_clone_is_the_file_it_points_to(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (host / "models" / "build.py").rename(host / "models" / "built.py")
    (host / "models" / "build.py").symlink_to("built.py")
    before = (host / "models" / "built.py").read_bytes()
    found = identify(host)
    assert found.kind == "PoinTr-style host"
    assert [edit.file for edit in found.edits if edit.name == "takes_loss"] == ["models/built.py"]
    assert not found.findings
    assert main(["patch", str(host)]) == 0
    assert main(["patch", str(host), "--check"]) == 0
    assert b"@takes_loss" in (host / "models" / "built.py").read_bytes()
    assert main(["patch", str(host), "--revert"]) == 0
    assert (host / "models" / "built.py").read_bytes() == before
    assert (host / "models" / "build.py").is_symlink()


def test_a_link_out_of_the_clone_makes_no_host_of_another_kind(host: Path, tmp_path: Path) -> None:
    (host / "models" / "build.py").rename(tmp_path / "build.py")
    (host / "models" / "build.py").symlink_to(tmp_path / "build.py")
    (host / "train.py").write_text(
        "from extensions.chamfer import ChamferDistanceL2\n\n\n"
        "def train(a, b):\n    ChamferDistanceL2()(a, b).backward()\n"
    )
    with pytest.raises(AmbiguousError, match=r"models/build\.py is a link out of .* put a copy in its place"):
        identify(host)


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
