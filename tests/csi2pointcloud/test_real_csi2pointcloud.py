"""A real CSI2PointCloud clone: its own training script trains with `loss: APML` on generated data, and is measured.

Opt in with APML_CSI2PC=path-of-a-clone (it is copied, never touched). A frame takes seconds on a CPU, so few are used.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from apml_plugin.hosts.base import Clone
from apml_plugin.hosts.csi2pointcloud.reading import recognise
from apml_plugin.studies.demo import mmfi
from apml_plugin.studies.evaluate.csi2pointcloud import evaluate

CLONE = os.environ.get("APML_CSI2PC", "")
ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs" / "csi2pointcloud" / "csi2pointcloud_generated.yaml"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CLONE, reason="set APML_CSI2PC to the path of a CSI2PointCloud clone"),
]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("real") / "csi2pointcloud"
    shutil.copytree(CLONE, root)
    mmfi.write(root / "data" / "generated", step=5)
    return root


@pytest.fixture
def config(clone: Path, tmp_path: Path) -> Path:
    """One epoch of seven iterations of eight frames."""
    given = yaml.safe_load(CONFIG.read_text())
    given.update(epochs=1, train_loader={"batch_size": 8})
    path = tmp_path / "few.yaml"
    path.write_text(yaml.safe_dump(given))
    return path


def run(clone: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg", **variables}
    return subprocess.run(
        [sys.executable, *command], cwd=clone / "scripts", env=env, capture_output=True, text=True, timeout=1800
    )


def test_patch_and_revert(clone: Path) -> None:
    (script,) = recognise(Clone(clone).project).scripts
    before = (clone / script.file).read_bytes()
    for flag in ((), ("--check",), ("--revert",)):
        done = run(clone, str(ROOT / "patches" / "csi2pointcloud.py"), str(clone), *flag)
        assert done.returncode == 0, done.stderr
    assert (clone / script.file).read_bytes() == before


@pytest.mark.parametrize("patched", [True, False])
def test_train_and_evaluate(clone: Path, config: Path, patched: bool) -> None:
    """The script patched, and the script as it is under `apml run`."""
    patch = str(ROOT / "patches" / "csi2pointcloud.py")
    if patched:
        assert run(clone, patch, str(clone)).returncode == 0
        done = run(clone, "train_model.py", APML_CONFIG=str(config))
        assert run(clone, patch, str(clone), "--revert").returncode == 0
    else:
        done = run(clone, "-m", "apml_plugin", "run", "train_model.py", APML_CONFIG=str(config))
    assert done.returncode == 0, done.stderr
    assert "trains with 0.85 * (APML(" in done.stderr
    assert "EPOCH 1/1" in done.stdout
    validation = float(re.findall(r"Validation loss: (\S+)", done.stdout)[-1])
    saved = next((clone / "models" / "checkpoints").glob("*.pth"))
    result = evaluate(recognise(Clone(clone).project), saved, config)
    saved.unlink()
    # The reader draws its points anew each time.
    assert 0.85 * result.values["Chamfer (the host's)"] == pytest.approx(validation, rel=0.05)
