"""A stand-in hides no package that is really there, and what is wrong with that one is said. In real processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from launch.test_launch_old_hosts import run, told


def installed(folder: Path, **modules: str) -> str:
    place = folder / "site-packages"
    for name, text in modules.items():
        file = place.joinpath(*name.split("__")).with_suffix(".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        if file.parent != place and not (file.parent / "__init__.py").exists():
            (file.parent / "__init__.py").touch()
    return str(place)


def test_what_is_installed_and_broken_stays_and_is_named(tmp_path: Path) -> None:
    broken = "raise RuntimeError('operator other::thing does not exist')\n"
    place = installed(tmp_path, timm=broken, pytorch3d__ops=broken, pytorch3d__loss="from pytorch3d import ops\n")
    script = """
for name in ('timm', 'pytorch3d.loss'):
    try:
        __import__(name)
    except RuntimeError as error:
        print(error)
"""
    done = run(script, tmp_path, "--cpu", APML_TEST_PATH=place)
    assert done.stdout == "operator other::thing does not exist\n" * 2, done.stderr
    assert told(done, f"timm at {place}/timm.py does not import (RuntimeError: operator other::thing") == 1
    assert told(done, f"pytorch3d.ops at {place}/pytorch3d/ops.py does not import") == 1
    assert done.stderr.count("It is there, so no stand-in takes its place: repair it or uninstall it") == 3
    assert "stand-in with" not in done.stderr


def test_an_error_that_nobody_catches_is_the_real_one(tmp_path: Path) -> None:
    place = installed(tmp_path, open3d="import nowhere_to_be_found\n")
    done = run("import open3d\n", tmp_path, "--cpu", APML_TEST_PATH=place)
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("ModuleNotFoundError: No module named 'nowhere_to_be_found'")
    assert "apml_plugin/standins" not in done.stderr
    assert told(done, "open3d at ") == 1


def test_another_package_of_the_name_is_named(tmp_path: Path) -> None:
    place = installed(tmp_path, tensorboardX="VERSION = 1\n")
    done = run("import tensorboardX; print(tensorboardX.VERSION)\n", tmp_path, "--cpu", APML_TEST_PATH=place)
    assert done.stdout == "1\n", done.stderr
    assert told(done, f"tensorboardX at {place}/tensorboardX.py has no SummaryWriter: is it another package") == 1


def test_what_was_compiled_for_cuda_is_set_aside_without_a_device(tmp_path: Path) -> None:
    place = installed(tmp_path, knn_cuda="raise AssertionError('CUDA')\n", chamfer="forward = backward = len\n")
    script = "import knn_cuda, chamfer; print(knn_cuda.KNN.__name__, chamfer.forward is len)\n"
    done = run(script, tmp_path, "--cpu", APML_TEST_PATH=place)
    assert done.stdout == "KNN False\n", done.stderr
    why = "compiled for CUDA, and PyTorch sees no CUDA device"
    assert f"pure PyTorch stand-in, slower than the real one (the one at {place}/knn_cuda.py is {why})" in done.stderr
    assert f"(the one at {place}/chamfer.py is {why})" in done.stderr


@pytest.mark.parametrize("works", [True, False])
def test_what_the_host_puts_on_its_path_later(tmp_path: Path, works: bool) -> None:
    (tmp_path / "utils" / "mm3d_pn2").mkdir(parents=True)
    text = "furthest_point_sample = gather_points = grouping_operation = len\n" if works else "from . import ext\n"
    (tmp_path / "utils" / "mm3d_pn2" / "__init__.py").write_text(text)
    (tmp_path / "utils" / "emd").mkdir()  # a folder that merely has the name
    script = """
import subprocess, sys
sys.path.append('utils')
import mm3d_pn2, emd
print(mm3d_pn2.gather_points is len, emd.forward.__name__)
"""
    done = run(script, tmp_path, "--cpu")
    assert done.stdout == f"{works} forward\n", done.stderr
    assert told(done, "mm3d_pn2: pure PyTorch stand-in") == (0 if works else 1)
    assert ("cannot import name 'ext'" in done.stderr) != works
    assert "emd: stand-in" in done.stderr


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
    done = run(COUNTED, tmp_path, "--cpu")
    first, second = done.stdout.splitlines()
    assert first == "1 False CPU 0 0 0", done.stderr
    head = "import torch\nfrom torch import nn\ntorch.manual_seed(3)\nnet = nn.DataParallel(nn.Linear(3, 1))\n"
    body = "net(torch.rand(4, 3)).mean().backward()\nprint(net.module.weight.grad.tolist(), torch.rand(1).item())\n"
    done = run(head + body, tmp_path, "--no-cpu-mode")
    assert done.stdout.splitlines() == [second], done.stderr


def test_a_library_that_asks_for_an_optional_package_gets_no_stand_in(tmp_path: Path) -> None:
    """torchmetrics, and with it Lightning, goes on to torchvision.models where it finds a torchvision."""
    asks = """
import importlib
import importlib.util

there = importlib.util.find_spec("torchvision") is not None
try:
    importlib.import_module("torchvision")
except ImportError:
    pass
else:
    from torchvision.models import resnet50
try:
    import knn_cuda
except ImportError:
    knn_cuda = None
"""
    place = installed(tmp_path, library=asks)
    script = "import library; print(library.there, library.knn_cuda.KNN.__name__); import torchvision.transforms\n"
    done = run(script, tmp_path, "--cpu", APML_TEST_PATH=place)
    assert done.stdout == "False KNN\n", done.stderr
    assert told(done, "torchvision: stand-in") == 1
    assert done.returncode == 0
