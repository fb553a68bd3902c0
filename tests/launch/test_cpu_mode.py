"""`apml run` on a machine without a GPU, for hosts that know only GPUs."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from forking import clean_environment
from launch.running import APML, announced, run

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
    environ = clean_environment()
    environ["PYTHONPATH"] = os.pathsep.join([str(tmp_path / "site"), environ["PYTHONPATH"]])
    words = ["project/train.py", "--cpu", "--help", "-m", "x y"]
    done = subprocess.run([*APML, *words], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == 7, done.stderr
    printed = json.loads(done.stdout)
    assert printed["worker"] == [[[3.0] * 4]] * 2
    assert printed["devices"] == ["cpu"]
    assert (printed["available"], printed["count"]) == (False, 1)
    assert printed["argv"] == ["--cpu", "--help", "-m", "x y"]
    assert printed["path0"] == str(project)
    assert (printed["cwd"], printed["main"]) == (str(tmp_path), str(tmp_path / "project/train.py"))
    assert (printed["spec"], printed["name"]) == ("open3d", "chamfer chamfer")
    assert printed["hidden"] == "the one that was there"
    # A process that the script starts has the same, and does not say so again.
    assert printed["child"] == "3.0\n"
    assert announced(done, "CPU mode") == announced(done, "chamfer: pure PyTorch stand-in") == 1
    assert "No module named 'chamfer'" in done.stderr
    # Numbers are those of plain CPU code.
    torch.manual_seed(5)
    model = torch.nn.Linear(3, 3)
    assert model(torch.rand(4, 3)).sum().item() == printed["loss"]


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
    done = run(tmp_path, "torchrun", "--standalone", "--nproc_per_node", "2", "go.py")
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / f"rank{i}").read_text() for i in range(2)] == ["gloo True"] * 2
    assert done.stderr.count("[apml] CPU mode") == 1
    assert done.stderr.count("[apml] chamfer: ") == 1


COUNTED = """
import torch
from torch import nn
count = torch.cuda.device_count()
torch.cuda.manual_seed_all(3), torch.cuda.empty_cache(), torch.cuda.set_rng_state_all(torch.cuda.get_rng_state_all())
torch.manual_seed(3)
net = nn.DataParallel(nn.Linear(3, 1), device_ids=list(range(count))).cuda()
loss = net(torch.rand(4, 3).cuda(non_blocking=True)).mean()
with torch.random.fork_rng():
    torch.rand(9)
loss.backward(torch.squeeze(torch.ones(torch.cuda.device_count())).cuda())
print(count, torch.cuda.is_available(), torch.cuda.get_device_name(0), torch.cuda.get_device_properties(0).major,
      torch.cuda.memory_allocated() + torch.cuda.max_memory_allocated(0), torch.cuda.get_device_capability()[0])
print(net.module.weight.grad.tolist(), torch.rand(1).item())
"""


def test_one_device_is_counted_in_cpu_mode(tmp_path: Path) -> None:
    (tmp_path / "go.py").write_text(COUNTED)
    done = run(tmp_path, "go.py", cpu=True)
    first, second = done.stdout.splitlines()
    assert first == "1 False CPU 0 0 0", done.stderr
    torch.manual_seed(3)  # the same without CUDA calls
    net = torch.nn.Linear(3, 1)
    net(torch.rand(4, 3)).mean().backward()
    assert second == f"{net.weight.grad.tolist()} {torch.rand(1).item()}"  # type: ignore[union-attr]
