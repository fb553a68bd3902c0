"""A real PoinTr clone and checkpoints as it wrote them before 2021-08-19: inspected, converted, started from.

Opt in with APML_POINTR=path-of-a-clone (it is copied, never touched).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hosts.real_pointr import (
    ROOT,
    apml_run,
    checkpoint,
    copy_clone,
    old_layout,
    pcn_data,
    train,
    validation,
    weights,
    write_config,
)

pytestmark = [pytest.mark.pointr, pytest.mark.slow]

MODELS = ("FoldingNet", "PoinTr")
STILL = {"type": "Adam", "kwargs": {"lr": 0.0, "weight_decay": 0}}
"""Nothing is learned: what is validated first is what was loaded, whatever the loss."""
AS_THEN = {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}


def apml(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "apml_plugin", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_clone(tmp_path_factory.mktemp("real") / "PoinTr")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pcn_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module", params=MODELS)
def made(request: pytest.FixtureRequest, clone: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory):
    """(folder, model, what the host saves today, the same as it saved then)."""
    folder = tmp_path_factory.mktemp(request.param)
    config = write_config(folder, dataset, request.param)
    train(clone, config, "released", "--deterministic")
    saved = checkpoint(clone, config, "released")
    return folder, request.param, saved, old_layout(clone, saved, folder / "old.pth", both=True)


def first_validation(clone: Path, config: Path, name: str, start: Path, trusted: bool = False) -> dict[str, float]:
    words = ["main.py", "--config", str(config), "--exp_name", name, "--num_workers", "0", "--seed", "7"]
    words += ["--deterministic", "--start_ckpts", str(start)]
    output = apml_run(clone, ["--trust-checkpoints", *words] if trusted else words, more=AS_THEN if trusted else None)
    assert ("an old file, read without running code" in output) is ("old" in start.name and not trusted)
    return validation(checkpoint(clone, config, name))


def test_inspected_against_the_hosts_yaml(made, clone: Path) -> None:  # type: ignore[no-untyped-def]
    folder, model, saved, old = made
    done = apml("checkpoint", "inspect", old, "--config", folder / f"{model}.yaml", "--host", clone, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["model"]["loads"]
    assert told["model"]["matching"] == len(weights(saved)) == told["tensors"]
    assert told["layout"] == "base_model"
    assert told["epoch"] == 0
    assert told["optimizer"]
    assert told["metrics"] == validation(saved)
    assert "utils.metrics.Metrics" in told["kept_as_plain_values"]
    assert "extensions.emd.emd_module.emdModule" in told["kept_as_plain_values"]


def test_another_models_yaml_is_told_apart(made, clone: Path, dataset: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    _, _, _, old = made
    other = write_config(tmp_path, dataset, "PCN")
    done = apml("checkpoint", "inspect", old, "--config", other, "--host", clone)
    assert done.returncode == 1
    assert "PCN of" in done.stdout
    assert "does not accept it" in done.stdout
    assert "missing: " in done.stdout
    assert "unexpected: " in done.stdout


def test_first_validation_is_the_unpatched_hosts(made, clone: Path, dataset: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Started from by PyTorch as it was then, from the conversion, and from the old file itself."""
    _, model, saved, old = made
    new = tmp_path / "new.pth"
    done = apml("checkpoint", "convert", old, "-o", new)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == [new]
    converted = torch.load(new, weights_only=True)
    today = torch.load(saved, weights_only=True)
    assert all(torch.equal(converted["base_model"][key], value) for key, value in today["base_model"].items())
    assert converted["metrics"] == today["metrics"]
    assert converted["best_metrics"] == today["best_metrics"]
    assert converted["epoch"] == today["epoch"]

    config = write_config(tmp_path / "run", dataset, model)
    expected = first_validation(clone, config, "then", old, trusted=True)
    for name, start in (("converted", new), ("direct", old)):
        assert first_validation(clone, config, name, start) == pytest.approx(expected, abs=1e-5, rel=0)

    still = write_config(tmp_path / "still", dataset, model, optimizer=STILL)
    expected = first_validation(clone, still, "then", old, trusted=True)
    apml_loss = write_config(tmp_path / "apml", dataset, model, optimizer=STILL, loss="APML")
    for name, start in (("converted", new), ("direct", old)):
        found = first_validation(clone, apml_loss, name, start)
        print(model, name, "first validation", found, "unpatched", expected)
        assert found == pytest.approx(expected, abs=1e-5, rel=0)


def test_resumes_from_an_old_file(made, clone: Path, dataset: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    _, model, saved, old = made
    config = write_config(tmp_path, dataset, model)
    train(clone, config, "resumed")
    last = checkpoint(clone, config, "resumed")
    shutil.copy(old, last)
    kept = last.parent / "config.yaml"
    kept.write_text(kept.read_text().replace("max_epoch: 0", "max_epoch: 1"))
    output = train(clone, config, "resumed", "--resume")
    assert "[Training] EPOCH: 1" in output
    assert f"best_metrics = {validation(saved)}" in output
