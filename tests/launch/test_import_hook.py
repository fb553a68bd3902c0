"""Which modules the import hook changes, and which it leaves alone."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from forking import clean_environment

from apml_plugin.files.sources import root_of
from apml_plugin.launch import environment, import_hook, recipes
from apml_plugin.launch.cpu_mode import on_cpu


@pytest.fixture
def finder(tmp_path: Path) -> import_hook.Finder:
    return import_hook.Finder(environment.Settings({"chamfer": "why", "timm": "why"}, "", True))


def test_libraries_are_no_project(tmp_path: Path):
    import json

    assert not recipes.is_library(str(tmp_path / "models" / "build.py"))
    assert recipes.is_library(str(tmp_path / "venv/lib/site-packages/m.py"))
    # Not even where the project folder holds Python's own library or this package.
    assert recipes.is_library(json.__file__)
    assert recipes.is_library(import_hook.__file__)


def test_stand_ins_have_specs_of_their_own(finder: import_hook.Finder):
    spec = finder.find_spec("chamfer")
    assert spec is not None
    assert (spec.name, spec.has_location) == ("chamfer", True)
    package = finder.find_spec("timm")
    assert package is not None
    assert package.submodule_search_locations == []
    assert finder.find_spec("emd") is None


def test_a_project_module_is_found_by_the_usual_finders(finder: import_hook.Finder, tmp_path: Path, monkeypatch):
    (tmp_path / "apml_test_piece.py").write_text("VALUE = 3\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = finder.find_spec("apml_test_piece")
    assert spec is not None
    assert spec.origin == str(tmp_path / "apml_test_piece.py")
    assert type(spec.loader) is type(importlib.util.find_spec("json").loader)  # type: ignore[union-attr]


def test_outside_a_run_nothing_is_installed(monkeypatch):
    monkeypatch.delenv(environment.STANDINS, raising=False)
    before = list(sys.meta_path)
    import_hook.install()
    assert sys.meta_path == before


def test_an_interpreter_starts_cheaply():
    """Every Python of a run imports the hook before its script: nothing that takes long comes along."""
    code = "import sys; print('apml_plugin.launch.import_hook' in sys.modules, *sys.modules)"
    environ = environment.write(clean_environment(), environment.Settings({}, "", True))
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True)
    assert done.stdout.startswith("True "), done.stderr
    assert not {"torch", "numpy", "yaml", "subprocess"} & set(done.stdout.split())


def test_the_environment_there_and_back():
    settings = environment.Settings({"chamfer": 'says "no"\nand é'}, "because", True, "--loss APML")
    written = environment.write({"PYTHONPATH": "/a::/b", "KEEP": "1", environment.TOLD: "cpu"}, settings)
    assert environment.read(written) == settings
    assert written["KEEP"] == "1"
    assert environment.TOLD not in written
    site, *others = written["PYTHONPATH"].split(":")
    assert Path(site, "sitecustomize.py").is_file()
    assert others == ["/a", "/b"]
    again = environment.write(written, settings)
    assert again["PYTHONPATH"] == written["PYTHONPATH"]
    assert environment.without_run(written) == {"PYTHONPATH": "/a:/b", "KEEP": "1"}
    assert environment.read({}) is None


def test_every_name_of_a_cuda_device_is_the_cpu():
    import torch

    for device in ("cuda", "cuda:3", 0, 1, torch.device("cuda"), torch.device("cuda", 1)):
        assert str(on_cpu(device)) == "cpu"
    for other in ("cpu", "meta", True, None, torch.float64, torch.device("meta")):
        assert on_cpu(other) is other


def test_the_project_is_told_by_what_lies_around_a_file(tmp_path: Path):
    def made(*files: str) -> Path:
        for file in files:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_text("")
        return tmp_path

    made("repo/.git/HEAD", "repo/codes/deep/main.py", "repo/codes/README.md")
    assert root_of(tmp_path / "repo" / "codes" / "deep" / "main.py") == str(tmp_path / "repo")
    # A ZIP download has no .git.
    made("zip/README.md", "zip/completion/train.py", "zip/completion/README.md", "zip/utils/metrics.py")
    assert root_of(tmp_path / "zip" / "completion") == str(tmp_path / "zip")
    # Nor a README: the script imports what lies beside its folder.
    made("bare/models/pcn.py", "bare/tools/main.py", "bare/other/main.py")
    (tmp_path / "bare/tools/main.py").write_text("import sys\nsys.path.append('..')\nfrom models import pcn\n")
    assert root_of(tmp_path / "bare" / "tools" / "main.py") == str(tmp_path / "bare")
    assert root_of(tmp_path / "bare" / "other" / "main.py") == str(tmp_path / "bare" / "other")
    # A package is not all of a project.
    made("plain/net/__init__.py", "plain/net/sub/__init__.py", "plain/net/sub/m.py", "plain/main.py")
    assert root_of(tmp_path / "plain" / "net" / "sub" / "m.py") == str(tmp_path / "plain")
