"""A user's project that checks its types strictly sees the types of this package, however it was installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import torch

from apml_plugin.losses.base import DECLARED

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = """
import torch
from apml_plugin import LOSSES, build_loss, matching_plan, {losses}
from apml_plugin.functional import apml_loss, chamfer_distance
from apml_plugin.hooks import training_loss, training_value
from apml_plugin.metrics import METRICS, Accumulator, cd_l1


def step(pred: torch.Tensor, gt: torch.Tensor) -> torch.Tensor:
    value: torch.Tensor = APML(p_min=0.8, reduction="mean")(pred, gt)
    value += build_loss("APML")(pred, gt)
    plan: torch.Tensor = matching_plan(pred, gt)
    return value + apml_loss(pred, gt) + chamfer_distance(pred, gt) + plan.sum() + cd_l1(pred, gt)


APML(p_min="0.8")
"""


def check(folder: Path, *options: str) -> str:
    """What mypy says of a project in `folder` that uses the package and makes one mistake."""
    file = folder / "program.py"
    file.write_text(PROGRAM.format(losses=", ".join(sorted(DECLARED))))
    cache = str(ROOT / ".mypy_cache")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", cache, *options, str(file)],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    mistake = 'Argument "p_min" to "APML" has incompatible type "str"; expected "float"'
    assert mistake in done.stdout, done.stdout + done.stderr
    assert "Found 1 error" in done.stdout, done.stdout
    return done.stdout + done.stderr


def test_a_strict_project_finds_every_name_and_its_own_mistake(tmp_path: Path) -> None:
    check(tmp_path)


@pytest.mark.skipif(not os.environ.get("APML_TYPING"), reason="APML_TYPING=1: builds a wheel, half a minute")
def test_so_does_one_that_depends_on_a_wheel(tmp_path: Path) -> None:
    source, home = tmp_path / "source", tmp_path / "venv"
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "cuda_ext", "apml_plugin"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    venv.create(home, with_pip=False)
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(subprocess.run([python, "-c", where], capture_output=True, text=True, check=True).stdout.strip())
    install = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(packages), str(source)]
    subprocess.run([sys.executable, "-m", "pip", *install], env={**os.environ, "APML_BUILD": "off"}, check=True)
    assert (packages / "apml_plugin" / "py.typed").exists()
    # PyTorch and the others come from here. An editable install there is a .pth file, which is not read again.
    (packages / "others.pth").write_text(f"{Path(torch.__file__).parents[1]}\n")
    project = tmp_path / "project"
    project.mkdir()
    shown = check(project, "--python-executable", str(python), "--verbose")
    assert str(packages / "apml_plugin") in shown
    assert str(ROOT / "apml_plugin") not in shown
