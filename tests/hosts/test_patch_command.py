"""`apml patch` and the scripts in patches/, on a clone that lies on disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from apml_plugin.cli import main

PATCHES = Path(__file__).resolve().parents[2] / "patches"


def snapshot(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_patch_then_revert(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(host)
    assert main(["patch", str(host), "--check"]) == 1
    assert main(["patch", str(host), "--dry-run"]) == 0
    assert snapshot(host) == before
    assert "would be patched: models/build.py" in capsys.readouterr().out
    assert main(["patch", str(host)]) == 0
    out = capsys.readouterr().out
    assert "+@takes_loss  # apml-plugin" in out
    assert "patched: utils/config.py" in out
    assert main(["patch", str(host), "--check"]) == 0
    assert main(["patch", str(host), "--revert", "--check"]) == 1
    patched = snapshot(host)
    assert main(["patch", str(host)]) == 0
    assert snapshot(host) == patched
    assert "nothing to do, nothing changed" in capsys.readouterr().out
    assert main(["patch", str(host), "--revert"]) == 0
    assert snapshot(host) == before
    assert main(["patch", str(host), "--revert"]) == 0
    assert capsys.readouterr().out.endswith("nothing to revert\n")


def test_errors_are_one_line_and_change_nothing(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (host / "utils" / "config.py").write_bytes(
        (host / "utils" / "config.py").read_bytes() + b"\n# @hoists_loss  # apml-plugin\n"
    )
    before = snapshot(host)
    for arguments in (
        ["patch", str(host)],
        ["patch", str(host), "--revert"],
        ["patch", str(host), "--model", "PCNet"],
        ["patch", str(host / "models")],
    ):
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
    assert snapshot(host) == before


def test_one_model_only(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(host)
    assert main(["patch", str(host), "--model", "PCN", "--model", "PoinTr"]) == 0
    changed = {path.relative_to(host).as_posix() for path, data in snapshot(host).items() if before[path] != data}
    assert changed == {"models/PCN.py", "models/PoinTr.py", "utils/config.py"}
    assert main(["patch", str(host), "--check", "--model", "PCN"]) == 0
    assert main(["patch", str(host), "--check"]) == 1
    assert main(["patch", str(host), "--revert"]) == 0  # takes out whatever our patches put in
    assert snapshot(host) == before


@pytest.mark.parametrize("name", ["pcn", "foldingnet", "topnet", "pointr"])
def test_the_scripts_run_alone(host: Path, tmp_path: Path, name: str) -> None:
    before = snapshot(host)

    def script(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(PATCHES / f"{name}.py"), str(host), *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    done = script()
    assert done.returncode == 0, done.stderr
    changed = {
        path.relative_to(host).as_posix().lower() for path, data in snapshot(host).items() if before[path] != data
    }
    assert changed == {f"models/{name}.py", "utils/config.py"}
    if name == "pcn":
        assert script("--check").returncode == 0
        assert script("--revert").returncode == 0
        assert script("--check").returncode == 1
    else:
        assert main(["patch", str(host), "--revert"]) == 0
    assert snapshot(host) == before


def test_a_script_and_the_whole_patch_combine(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(host)
    assert main(["patch", str(host), "--model", "FoldingNet"]) == 0
    assert main(["patch", str(host)]) == 0
    capsys.readouterr()
    assert main(["patch", str(host), "--revert", "--model", "FoldingNet"]) == 0
    assert "left patched: utils/config.py (models/build.py still needs it)" in capsys.readouterr().out
    assert main(["patch", str(host), "--check"]) == 0
    assert main(["patch", str(host), "--revert"]) == 0
    assert snapshot(host) == before


def test_a_clone_that_is_not_recognised_any_more_is_reverted(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(host)
    assert main(["patch", str(host)]) == 0
    for file in ("models/build.py", "utils/config.py"):
        with (host / file).open("ab") as stream:
            stream.write(b"\ndef (\n")
    capsys.readouterr()
    assert main(["patch", str(host)]) == 1
    assert "models/build.py, line " in capsys.readouterr().err
    assert main(["patch", str(host), "--revert"]) == 0
    assert "reverted: models/build.py" in capsys.readouterr().out
    for file in ("models/build.py", "utils/config.py"):
        assert (host / file).read_bytes() == before[host / file] + b"\ndef (\n"
    assert main(["patch", str(host), "--revert"]) == 1


def test_what_a_killed_patch_left_is_removed_and_said(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ([], ["--revert"], ["--revert"]):
        (host / "utils" / ".config.py.apml").touch()
        assert main(["patch", str(host), *command]) == 0
        out = capsys.readouterr().out
        assert "removed: utils/.config.py.apml, which a killed `apml patch` had left" in out
    assert not list(host.rglob(".*.apml"))
