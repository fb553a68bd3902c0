"""Which modules the hooks take an interest in, and what they leave alone."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from apml_plugin.launch import environment, hooks, plan
from apml_plugin.launch.cpu_mode import on_cpu


@pytest.fixture
def finder(tmp_path: Path) -> hooks.Hooks:
    return hooks.Hooks(environment.Settings({"chamfer": "why", "timm": "why"}, "", str(tmp_path)))


def test_only_the_project_counts(finder: hooks.Hooks, tmp_path: Path):
    inside = tmp_path / "models" / "build.py"
    assert finder._is_project(str(inside))
    assert not finder._is_project(str(tmp_path.parent / "elsewhere.py"))
    assert not finder._is_project(str(tmp_path) + "2/build.py")
    assert not finder._is_project(str(tmp_path / "venv/lib/site-packages/m.py"))
    # Not even where the project folder holds Python's own library or this package.
    around = hooks.Hooks(environment.Settings({}, "", "/"))
    assert not around._is_project(json_file())
    assert not around._is_project(hooks.__file__)
    assert around._is_project(str(inside))
    assert not hooks.Hooks(environment.Settings({}, "", ""))._is_project(str(inside))


def json_file() -> str:
    import json

    return json.__file__


def test_stand_ins_have_specs_of_their_own(finder: hooks.Hooks):
    spec = finder.find_spec("chamfer")
    assert spec is not None
    assert (spec.name, spec.has_location) == ("chamfer", True)
    package = finder.find_spec("timm")
    assert package is not None
    assert [Path(p).name for p in package.submodule_search_locations or ()] == ["timm"]
    assert finder.find_spec("emd") is None
    assert finder.find_spec("os.path", ["/usr"]) is None


def test_a_project_module_is_found_by_the_usual_finders(finder: hooks.Hooks, tmp_path: Path, monkeypatch):
    (tmp_path / "apml_test_piece.py").write_text("VALUE = 3\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = finder.find_spec("apml_test_piece")
    assert spec is not None
    assert spec.origin == str(tmp_path / "apml_test_piece.py")
    assert type(spec.loader) is type(importlib.util.find_spec("json").loader)  # type: ignore[union-attr]


def test_outside_a_run_nothing_is_installed(monkeypatch):
    monkeypatch.delenv(environment.STANDINS, raising=False)
    before = list(sys.meta_path)
    hooks.install()
    assert sys.meta_path == before


def test_the_environment_there_and_back():
    settings = environment.Settings({"chamfer": 'says "no"\nand é'}, "because", "/project")
    written = environment.write({"PYTHONPATH": "/a::/b", "KEEP": "1", environment.TOLD: "cpu"}, settings)
    assert environment.read(written) == settings
    assert written["KEEP"] == "1"
    assert environment.TOLD not in written
    site, *others = written["PYTHONPATH"].split(":")
    assert Path(site, "sitecustomize.py").is_file()
    assert others == ["/a", "/b"]
    again = environment.write(written, settings)
    assert again["PYTHONPATH"] == written["PYTHONPATH"]
    assert environment.read({}) is None


def test_every_name_of_a_cuda_device_is_the_cpu():
    import torch

    for device in ("cuda", "cuda:3", 0, 1, torch.device("cuda"), torch.device("cuda", 1)):
        assert str(on_cpu(device)) == "cpu"
    for other in ("cpu", "meta", True, None, torch.float64, torch.device("meta")):
        assert on_cpu(other) is other


def test_the_project_is_the_checkout_around_the_script(tmp_path: Path):
    (tmp_path / "repo" / ".git").mkdir(parents=True)
    (tmp_path / "repo" / "codes").mkdir()
    assert plan._project(str(tmp_path / "repo" / "codes")) == str(tmp_path / "repo")
    (tmp_path / "plain").mkdir()
    assert plan._project(str(tmp_path / "plain")) == str(tmp_path / "plain")
