"""`apml run` on small projects of our own, in real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

APML = [sys.executable, "-m", "apml_plugin", "run"]


def apml_run(*words: str, cwd: Path, path: tuple[Path, ...] = (), **env: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("APML_RUN", "PYTHONPATH", "RANK"))}
    home = Path(__file__).parents[2]
    clean["PYTHONPATH"] = os.pathsep.join(map(str, [*path, home]))
    clean.update(OMP_NUM_THREADS="1", **env)
    return subprocess.run([*APML, *words], cwd=cwd, env=clean, capture_output=True, text=True, timeout=120)


PROJECT = """
import importlib.util, json, os, subprocess, sys
import torch
import chamfer
from torch.utils.data import DataLoader, Dataset
from pieces import part


class Clouds(Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, i):
        import chamfer, timm.models.layers, pointnet2_ops.pointnet2_utils
        a = torch.full((1, 4, 3), float(i), device='cuda')
        return chamfer.forward(a, a.cuda() + 1)[0][0]


if __name__ == '__main__':
    torch.manual_seed(5)
    loader = DataLoader(Clouds(), num_workers=1, multiprocessing_context='spawn')
    model = torch.nn.DataParallel(torch.nn.Linear(3, 3, device='cuda:0')).cuda()
    x = torch.rand(4, 3, device=torch.device('cuda', 0))
    torch.cuda.synchronize()
    torch.save({'w': model.state_dict()}, 'w.pth')
    scripted = torch.jit.script(part.grid)
    child = subprocess.run([sys.executable, __file__.replace('train', 'child')], capture_output=True, text=True)
    with torch.device('meta'):
        assert torch.zeros(3).is_meta
    with torch.device('cuda'):
        assert torch.zeros(3).device.type == 'cpu'
    with torch.cuda.device(0):
        print(json.dumps({
            'worker': [batch.tolist() for batch in loader],
            'loss': model(x).sum().item(),
            'devices': sorted({str(t.device) for t in (
                x, x.to(0), x.to('cuda:1'), x.new_zeros(2, device='cuda'), torch.cuda.FloatTensor([1.0]),
                x.type('torch.cuda.DoubleTensor'), scripted(x), torch.arange(3, device='cuda'),
                torch.load('w.pth', map_location={'cuda:0': 'cuda:1'})['w']['module.weight'])}),
            'available': torch.cuda.is_available(),
            'count': torch.cuda.device_count(),
            'argv': sys.argv[1:],
            'path0': sys.path[0],
            'cwd': os.getcwd(),
            'main': __file__,
            'spec': importlib.util.find_spec('open3d').name,
            'name': chamfer.__spec__.name + ' ' + chamfer.__name__,
            'child': child.stdout + child.stderr,
            'hidden': sys.modules['sitecustomize'].WHO,
        }))
    sys.exit(7)
"""

PART = """
import torch


def grid(x):
    return torch.zeros(2, device=x.device) + torch.ones(2, dtype=torch.float32)
"""

CHILD = """
import chamfer, torch
print(float(chamfer.forward(torch.zeros(1, 1, 3).cuda(), torch.ones(1, 1, 3))[0]))
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "pieces").mkdir(parents=True)
    (root / "pieces" / "__init__.py").touch()
    (root / "pieces" / "part.py").write_text(PART)
    (root / "train.py").write_text(PROJECT)
    (root / "child.py").write_text(CHILD)
    return root


def test_a_host_that_knows_only_gpus(project: Path, tmp_path: Path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("WHO = 'the one that was there'\n")
    done = apml_run("project/train.py", "--cpu", "--help", "-m", "x y", cwd=tmp_path, path=(tmp_path / "site",))
    assert done.returncode == 7, done.stderr
    said = json.loads(done.stdout)
    assert said["worker"] == [[[3.0] * 4]] * 2
    assert said["devices"] == ["cpu"]
    assert (said["available"], said["count"]) == (False, 1)
    assert said["argv"] == ["--cpu", "--help", "-m", "x y"]
    assert said["path0"] == str(project)
    assert (said["cwd"], said["main"]) == (str(tmp_path), str(tmp_path / "project/train.py"))
    assert (said["spec"], said["name"]) == ("open3d", "chamfer chamfer")
    assert said["hidden"] == "the one that was there"
    # A process that the script starts has the same, and does not say so again.
    assert said["child"] == "3.0\n"
    told = [line for line in done.stderr.splitlines() if line.startswith("[apml] ")]
    assert sum(line.startswith("[apml] CPU mode") for line in told) == 1
    assert sum(line.startswith("[apml] chamfer: pure PyTorch stand-in") for line in told) == 1
    assert "No module named 'chamfer'" in done.stderr
    # Numbers are those of plain CPU code.
    import torch

    torch.manual_seed(5)
    model = torch.nn.Linear(3, 3)
    assert model(torch.rand(4, 3)).sum().item() == said["loss"]


def test_real_modules_win_and_broken_ones_give_their_reason(tmp_path: Path):
    (tmp_path / "chamfer.py").write_text("forward = backward = 'real'\n")
    (tmp_path / "emd.py").write_text("import os; os._exit(9)\n")
    (tmp_path / "gridding").mkdir()  # a folder of sources: imports, but is not the module
    (tmp_path / "pointnet2_ops").mkdir()
    (tmp_path / "pointnet2_ops" / "__init__.py").write_text("raise ImportError('undefined symbol: _ZN2at')\n")
    script = "import chamfer, emd, gridding, pointnet2_ops\nprint(chamfer.forward, emd.__file__)\n"
    (tmp_path / "go.py").write_text(script)
    done = apml_run("go.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("real ")
    assert Path("standins", "emd.py").as_posix() in done.stdout
    assert "[apml] chamfer" not in done.stderr
    assert "the real one may give 10 % less (importing it ended Python with exit code 9)" in done.stderr
    assert (
        "[apml] gridding: pure PyTorch stand-in, slower than the real one (gridding at a bare folder has no forward)"
        in done.stderr
    )
    assert "(ImportError: undefined symbol: _ZN2at)" in done.stderr
    off = apml_run("--no-standins", "go.py", cwd=tmp_path)
    assert off.returncode == 9


def test_modules_commands_and_mistakes(tmp_path: Path):
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__main__.py").write_text("import sys; print(sys.path[0], sys.argv[1:])\n")
    done = apml_run("-m", "pack", "-m", "--no-attach", cwd=tmp_path)
    assert done.stdout.split() == [str(tmp_path), "['-m',", "'--no-attach']"], done.stderr
    done = apml_run("pack", "--dry-run", cwd=tmp_path)
    assert done.stdout.split() == [str(tmp_path / "pack"), "['--dry-run']"], done.stderr
    done = apml_run("python", "-c", "import open3d; open3d.visualization", cwd=tmp_path)
    assert done.returncode == 1
    assert "AttributeError: open3d.visualization is not in the stand-in for open3d" in done.stderr
    done = apml_run("nowhere.py", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "cannot run 'nowhere.py'" in done.stderr
    done = apml_run("--cpu", "--no-cpu-mode", "-m", "pack", cwd=tmp_path)
    assert "contradict" in done.stderr
    done = apml_run("--dry-run", "--cpu", "--no-attach", "-m", "pack", cwd=tmp_path)
    assert "on (--cpu was given)" in done.stdout
    assert "chamfer: ModuleNotFoundError" in done.stdout


def test_a_broken_plugin_does_not_break_python(tmp_path: Path):
    (tmp_path / "go.py").write_text("print('ran')\n")
    site = Path(__file__).parents[2] / "apml_plugin" / "launch" / "site"
    env = {**os.environ, "PYTHONPATH": str(site), "APML_RUN_STANDINS": "{no json"}
    env["APML_RUN_HOME"] = str(site.parents[2])
    done = subprocess.run([sys.executable, "go.py"], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert done.stderr.startswith("[apml] running without the plugin (JSONDecodeError")
    assert done.stderr.count("\n") == 1


DISTRIBUTED = """
import os, time, torch, torch.distributed as dist
torch.cuda.set_device(int(os.environ['RANK']) % torch.cuda.device_count())
dist.init_process_group(backend='nccl')
rank = dist.get_rank()
torch.manual_seed(rank)
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(3, 1).cuda(), device_ids=[0])
import chamfer
model(torch.rand(4, 3, device='cuda')).mean().backward()
total = model.module.weight.grad.clone()
dist.all_reduce(total)
dist.barrier(device_ids=[0])
same = torch.equal(total / 2, model.module.weight.grad)
open(f'rank{rank}', 'w').write(f'{dist.get_backend()} {same}')
dist.barrier()
time.sleep(0.5)  # a rank that hangs up while its peer still reads the barrier makes gloo abort that peer
dist.destroy_process_group()
"""


def test_ranks_of_torchrun(tmp_path: Path):
    (tmp_path / "go.py").write_text(DISTRIBUTED)
    done = apml_run("torchrun", "--standalone", "--nproc_per_node", "2", "go.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / f"rank{i}").read_text() for i in range(2)] == ["gloo True"] * 2
    assert done.stderr.count("[apml] CPU mode") == 1
    assert done.stderr.count("[apml] chamfer: ") == 1
