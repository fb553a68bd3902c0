"""The command itself, the list of losses and the doctor."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from apml_plugin import __version__
from apml_plugin.cli import main
from apml_plugin.registry import LOSSES


def test_losses_lists_every_loss_with_its_defaults(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["losses"]) == 0
    out = capsys.readouterr().out
    for name in LOSSES.module_dict:
        assert name in out
    for default in ("p_min=0.8", "threshold=auto", "threshold=1e-10", "reduction=mean", "min_softmax_value=0.8"):
        assert default in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"apml {__version__}\n"


def test_doctor_names_backend_and_reason(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "PyTorch" in out
    assert out.count("backend on cpu") in (1, 2, 3)
    assert "native: there are compiled ops for 3 coordinates" in out or "sparse: 16384 x 16384 points" in out
    assert "compiled ops" in out


def test_doctor_on_a_path_without_a_host_names_what_it_looked_for(tmp_path: Path, capsys) -> None:
    assert main(["doctor", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "Registry" in out
    assert "PyTorch" in out
    for name in ("chamfer_3D", "knn_cuda", "tensorboardX"):
        assert name in out
    assert out.count("used for what is not installed:") == 1


def test_doctor_lists_packages_that_are_installed_but_broken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site-packages" / "tensorboardX"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise OSError('libprotobuf.so: cannot open shared object file')")
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    monkeypatch.chdir(tmp_path)
    assert main(["doctor"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("tensorboardX "))
    assert f"broken: it is installed at {package / '__init__.py'}: OSError: libprotobuf.so" in line


@pytest.mark.parametrize("words", [["losss"], ["losses", "--colour"], ["check"]])
def test_wrong_arguments_are_errors(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert "Usage" in capsys.readouterr().err


def test_our_errors_are_one_line_and_exit_code_one(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "apml_plugin", "patch", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [[], ["demo"], ["checkpoint"]])
def test_the_list_of_commands_fits_into_a_terminal(words: list[str], capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*words, "--help"]) == 0
    assert "..." not in capsys.readouterr().out.partition("Commands:")[2]


def test_a_default_in_brackets_is_shown(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["compare", "--help"]) == 0
    assert "[default: apml_compare]" in " ".join(capsys.readouterr().out.split())
