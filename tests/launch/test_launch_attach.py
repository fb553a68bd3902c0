"""`apml run` puts the YAML's loss into the models of a PoinTr-style project without touching its files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).parents[2]

SCRIPT = """
import sys
from utils.config import cfg_from_yaml_file
from models import build_model_from_cfg
for config in sys.argv[1:]:
    print(config, type(build_model_from_cfg(cfg_from_yaml_file(config).model).loss_func).__name__)
"""

MODEL = "model: {{NAME: PCN, num_pred: 1024, encoder_channel: 64{}}}\n"

CONFIGS = {
    "none.yaml": MODEL.format(""),
    "model.yaml": MODEL.format(", loss: APML"),
    "top.yaml": MODEL.format("") + "loss: {NAME: APML, p_min: 0.7}\n",
    "misspelt.yaml": MODEL.format(", loss: APLM"),
}


@pytest.fixture
def host(tmp_path: Path) -> Path:
    shutil.copytree(HOME / "apml_plugin" / "demo" / "host", tmp_path / "host")
    (tmp_path / "host" / "build.py").write_text(SCRIPT)
    for name, text in CONFIGS.items():
        (tmp_path / "host" / name).write_text(text)
    return tmp_path / "host"


def run(host: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("APML_RUN")}
    env["PYTHONPATH"] = str(HOME)
    command = [sys.executable, "-m", "apml_plugin", "run", *words]
    return subprocess.run(command, cwd=host, env=env, capture_output=True, text=True, timeout=120)


def losses(output: str) -> dict[str, str]:
    pairs = [line.split() for line in output.splitlines()]
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2 and pair[0] in CONFIGS}


def test_the_loss_of_the_yaml_and_no_other(host: Path):
    before = {p: p.read_bytes() for p in host.rglob("*.py")}
    done = run(host, "build.py", *CONFIGS)
    said = done.stdout + done.stderr
    built = losses(done.stdout)
    assert built["none.yaml"] == "ChamferDistanceL2", said
    assert not built["model.yaml"].startswith("Chamfer")
    assert not built["top.yaml"].startswith("Chamfer")
    assert "PCN trains with APML(p_min=0.8" in said
    assert "PCN trains with APML(p_min=0.7" in said
    # A misspelt loss is the user's to know: it stops the run, and no hook swallows it.
    assert done.returncode == 1
    assert "UnknownLossError" in done.stderr
    assert "misspelt.yaml" not in built
    assert {p: p.read_bytes() for p in host.rglob("*.py")} == before


def test_no_attach(host: Path):
    done = run(host, "--no-attach", "build.py", *CONFIGS)
    assert losses(done.stdout) == dict.fromkeys(CONFIGS, "ChamferDistanceL2"), done.stderr
