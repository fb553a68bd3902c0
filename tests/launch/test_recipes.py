"""What `apml run` executes is what `apml patch` writes, in imported modules and in the script itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from hosts.loops import hosts_with_loops as fork_hosts
from launch.running import demo_host, run

from apml_plugin.hosts.base import identify
from apml_plugin.launch import recipes
from apml_plugin.patching import memory, plan_apply, write

HOSTS = {name: getattr(fork_hosts, name) for name in ("SHARED", "CHAIN", "LOCAL", "FORWARD", "TOP_LEVEL")}

SCRIPT = '''
"""A training script with a Chamfer of its own."""
import multiprocessing
import os
import sys

import torch


def chamfer(pred, gt):
    d = torch.cdist(pred, gt)
    return d.min(1)[0].mean() + d.min(2)[0].mean()


def square(x):
    return x * x


def train():
    pred, gt = torch.rand(1, 8, 3, requires_grad=True), torch.rand(1, 9, 3)
    loss = chamfer(pred, gt)
    loss.backward()
    torch.optim.SGD([pred], 0.1).step()
    return loss.item()


if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map(square, [2, 3]), __spec__, __file__, sys.path[0], sys.argv[1:])
    train()
    if "fail" in sys.argv:
        raise ValueError("here")  # line 35
'''


def same_text(root: Path) -> int:
    """Patches the host at `root`; the number of its patched files, each of which is what a run executes."""
    host = identify(root)
    recipes.of.cache_clear()
    lines = recipes.of(str(root))
    before = {file: (root / file).read_bytes() for file in lines.edits}
    write(plan_apply(root, [host.recipes[0]], host.recipes))
    for file, data in before.items():
        assert memory.text(data, lines.edits[file]) == (root / file).read_bytes() != data
    return len(before)


def test_a_pointr_style_host(tmp_path: Path) -> None:
    demo_host(tmp_path / "host")
    assert same_text(tmp_path / "host") == 2


@pytest.mark.parametrize("name", HOSTS)
def test_hosts_with_loops(name: str, tmp_path: Path) -> None:
    for file, text in HOSTS[name].items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    assert same_text(tmp_path) > 0


def test_a_script_runs_as_python_would_run_it(tmp_path: Path) -> None:
    script = tmp_path / "code" / "go.py"
    script.parent.mkdir()
    script.write_text(SCRIPT)
    done = run(tmp_path, "code/go.py", "a", "b", loss="APML")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"[4, 9] None {script} {script.parent} ['a', 'b']"
    assert "__main__.chamfer trains with APML(" in done.stderr
    assert script.read_text() == SCRIPT


def test_a_traceback_has_the_lines_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "go.py").write_text(SCRIPT)
    done = run(tmp_path, "go.py", "fail", loss="APML")
    assert done.returncode == 1
    number = SCRIPT.splitlines().index('        raise ValueError("here")  # line 35') + 1
    assert f'go.py", line {number}, in <module>\n    raise ValueError("here")' in done.stderr
    assert done.stderr.rstrip().endswith("ValueError: here")


def test_a_module_run_by_name(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").touch()
    (tmp_path / "pack" / "go.py").write_text(SCRIPT)
    done = run(tmp_path, "-m", "pack.go", "a", loss="APML")
    assert done.returncode == 0, done.stderr
    assert "trains with APML(" in done.stderr


BUILDS = """
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


def test_the_loss_of_the_yaml_and_no_other(tmp_path: Path) -> None:
    host = demo_host(tmp_path / "host")
    (host / "build.py").write_text(BUILDS)
    for name, text in CONFIGS.items():
        (host / name).write_text(text)
    before = {path: path.read_bytes() for path in host.rglob("*.py")}
    done = run(host, "build.py", *CONFIGS)
    built = losses(done.stdout)
    assert built["none.yaml"] == "ChamferDistanceL2", done.said
    assert not built["model.yaml"].startswith("Chamfer")
    assert not built["top.yaml"].startswith("Chamfer")
    assert "PCN trains with APML(p_min=0.8" in done.stdout + done.stderr
    assert "PCN trains with APML(p_min=0.7" in done.stdout + done.stderr
    # A misspelt loss stops the run with an error.
    assert done.returncode == 1
    assert "UnknownLossError" in done.stderr
    assert "misspelt.yaml" not in built
    assert {path: path.read_bytes() for path in host.rglob("*.py")} == before
    done = run(host, "build.py", *CONFIGS, attach=False)
    assert losses(done.stdout) == dict.fromkeys(CONFIGS, "ChamferDistanceL2"), done.stderr


def losses(output: str) -> dict[str, str]:
    pairs = [line.split() for line in output.splitlines()]
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2 and pair[0] in CONFIGS}
