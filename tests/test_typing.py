"""A user's project that checks its types strictly sees the types of this package, however it was installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


def test_a_strict_project_finds_every_name_and_its_own_mistake(tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text(PROGRAM.format(losses=", ".join(sorted(DECLARED))))
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(ROOT / ".mypy_cache"), str(file)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    mistake = 'Argument "p_min" to "APML" has incompatible type "str"; expected "float"'
    assert mistake in done.stdout, done.stdout + done.stderr
    assert "Found 1 error" in done.stdout, done.stdout
