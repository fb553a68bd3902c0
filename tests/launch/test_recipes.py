"""What `apml run` executes is what `apml patch` writes, in imported modules and in the script itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hosts import fork_hosts

from apml_plugin.hosts.base import identify
from apml_plugin.launch import recipes
from apml_plugin.patching import memory, plan_apply, write

HOME = Path(__file__).parents[2]
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


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if not key.startswith("APML_")}
    env.update(PYTHONPATH=str(HOME), OMP_NUM_THREADS="1")
    command = [sys.executable, "-m", "apml_plugin", "run", "--loss", "APML", *words]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120)


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
    source = HOME / "apml_plugin" / "demo" / "host"
    shutil.copytree(source, tmp_path / "host", ignore=shutil.ignore_patterns("__pycache__"))
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
    done = run("code/go.py", "a", "b", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"[4, 9] None {script} {script.parent} ['a', 'b']"
    assert "__main__.chamfer trains with APML(" in done.stderr
    assert script.read_text() == SCRIPT


def test_a_traceback_has_the_lines_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "go.py").write_text(SCRIPT)
    done = run("go.py", "fail", cwd=tmp_path)
    assert done.returncode == 1
    number = SCRIPT.splitlines().index('        raise ValueError("here")  # line 35') + 1
    assert f'go.py", line {number}, in <module>\n    raise ValueError("here")' in done.stderr
    assert done.stderr.rstrip().endswith("ValueError: here")


def test_a_module_run_by_name(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").touch()
    (tmp_path / "pack" / "go.py").write_text(SCRIPT)
    done = run("-m", "pack.go", "a", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "trains with APML(" in done.stderr
