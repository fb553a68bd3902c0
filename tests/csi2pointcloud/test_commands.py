"""The command line on such a clone: patch, check, doctor, run, and the script in patches/."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from apml_plugin.cli import main
from apml_plugin.cli.patch import script
from apml_plugin.errors import HostError
from apml_plugin.hosts.base import check_config
from apml_plugin.hosts.csi2pointcloud.training import wanted
from apml_plugin.launch import plan

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "patches" / "csi2pointcloud.py"
CONFIGS = sorted((ROOT / "configs" / "csi2pointcloud").glob("*.yaml"))
Captured = pytest.CaptureFixture[str]


def snapshot(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts}


def test_patch_check_explain_revert(host: Path, capsys: Captured) -> None:
    before = snapshot(host)
    assert main(["patch", str(host), "--check"]) == 1
    assert main(["patch", str(host), "--explain"]) == 0
    output = capsys.readouterr().out
    for words in (
        "CSI2PointCloud host at",
        "the Chamfer term of CloudLoss",
        "after 'rounds",
    ):
        assert words in output
    assert snapshot(host) == before
    assert main(["patch", str(host)]) == 0
    assert main(["patch", str(host), "--check"]) == 0
    assert main(["patch", str(host), "--revert"]) == 0
    assert snapshot(host) == before


def test_check_says_what_a_run_uses(host: Path, capsys: Captured) -> None:
    path = host / "data" / "configurations" / "settings.yaml"
    assert main(["check", str(path)]) == 0
    assert "the host's own" in capsys.readouterr().out
    parts = {"subjects": ["S01"], "actions": ["A01", "A02"]}
    given = yaml.safe_load(path.read_text())
    given["manual_split"] = {"train_dataset": parts, "val_dataset": {**parts, "actions": ["A02"]}}
    path.write_text(yaml.safe_dump({**given, "loss": "APML", "regularization_weight": 0, "num_epochs": 3}))
    assert main(["check", str(path)]) == 0
    output = capsys.readouterr().out
    for words in (
        "training:    APML(",
        "chamfer_weight of the script, regularization_weight 0",
        "validation:  the host's Chamfer",
        "is not patched",
        "S01/A02 are in both the training and the validation part",
        "num_epochs: is not read; did you mean epochs:?",
    ):
        assert words in output
    assert main(["patch", str(host)]) == 0
    capsys.readouterr()
    assert main(["check", str(path)]) == 0
    assert "is not patched" not in capsys.readouterr().out
    path.write_text(yaml.safe_dump({**given, "loss": "APLM"}))
    assert main(["check", str(path)]) == 1
    assert "did you mean 'APML'" in capsys.readouterr().out


def test_doctor_names_the_host(host: Path, capsys: Captured) -> None:
    assert main(["doctor", str(host)]) == 0
    assert "CSI2PointCloud host at" in " ".join(capsys.readouterr().out.split())


def test_a_run_looks_into_the_yaml_of_the_variable_first(
    host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(host / "scripts")
    own = (host / "data" / "configurations" / "settings.yaml").read_text()
    config = tmp_path / "mine.yaml"
    environ = {"APML_CONFIG": str(config)}
    config.write_text(own + "\nloss: APML\n")
    assert "mine.yaml asks for training: APML(" in plan.loss_of(["train.py"], environ)[1]
    config.write_text(own + "\nloss: APML\nloss: ChamferL1\n")
    with pytest.raises(HostError, match=r"mine\.yaml: loss: is given twice, in line \d+ and in line \d+"):
        plan.loss_of(["train.py"], environ)
    config.write_text(own + "\nloss: APLM\n")
    with pytest.raises(HostError, match="did you mean 'APML'"):
        plan.loss_of(["train.py"], environ)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs(config: Path, host: Path) -> None:
    found = check_config(config, host)
    assert not found.error
    assert found.stages["training"].startswith("APML(")
    assert found.warnings == []
    given = yaml.safe_load(config.read_text())
    assert wanted(given).matching.reduction == "mean"  # type: ignore[union-attr]
    for key in ("modality", "data_unit", "protocol", "init_rand_seed", "train_loader", "validation_loader"):
        assert key in given
    assert set(given[given["split_to_use"]]) == {"train_dataset", "val_dataset"}


def run(*command: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("APML_")}
    kept.update(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    return subprocess.run(
        [sys.executable, *command], cwd=cwd, env={**kept, **variables}, capture_output=True, text=True, timeout=120
    )


def test_the_script_in_patches(host: Path, data: Path) -> None:
    assert "+    rounds = csi2pointcloud" in run(str(SCRIPT), str(host), cwd=host).stdout
    assert run(str(SCRIPT), str(host), "--check", cwd=host).returncode == 0
    refused = run(str(SCRIPT), str(host / "data"), cwd=host)
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: ")
    assert refused.stderr.count("\n") == 1


def test_apml_run_puts_the_lines_into_the_script(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan.probe, "look", lambda *_: plan.probe.Probe({}, {}, True))
    file = str(host / "scripts" / "train.py")
    planned = plan.make([file, "--x"])
    assert planned.command[1:] == [file, "--x"]
    assert set(planned.lines.edits) == {"scripts/train.py"}
    assert not plan.make([file], attach=False).lines.edits


def test_run_without_a_patch_then_evaluate(
    host: Path, data: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The script as it is, with its lines put in by `apml run`; then the checkpoint it saved, measured."""
    path = host / "data" / "configurations" / "settings.yaml"
    keys = {"loss": {"NAME": "APML", "reduction": "mean"}, "dataset_root": str(data), "epochs": 2}
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **keys}))
    before = (host / "scripts" / "train.py").read_bytes()
    done = run("-m", "apml_plugin", "run", "train.py", cwd=host / "scripts")
    assert done.returncode == 0, done.stderr
    assert "CloudLoss trains with 0.85 * (APML(" in done.stderr
    assert "round 2/2" in done.stdout
    assert (host / "scripts" / "train.py").read_bytes() == before
    words = [str(host), "--evaluate", str(host / "models" / "last.pth"), "--config", str(path)]
    monkeypatch.setattr(sys, "argv", ["csi2pointcloud.py", *words])
    assert script(None, None) == 0
    captured = capsys.readouterr()
    assert "last.pth, epoch 2: 5 validation frames" in captured.out
    assert "Chamfer (the host's):" in captured.out
    monkeypatch.setattr(sys, "argv", ["csi2pointcloud.py", *words[:3]])
    with pytest.raises(SystemExit):
        script(None, None)
