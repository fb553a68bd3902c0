"""What `apml run` does for hosts written for older libraries."""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from launch.running import announced, planned, run

from apml_plugin.launch import environment, old_hosts


def go(script: str, folder: Path, **options: object):
    (folder / "go.py").write_text(script)
    return run(folder, "go.py", **{"cpu": True, **options})


COMPILED_AT_START = """
import importlib, torch
assert importlib.find_loader('chamfer_3D') is not None
assert importlib.find_loader('nowhere_to_be_found') is None
from torch.utils.cpp_extension import load
chamfer_3D = load(name='chamfer_3D', sources=['/nowhere/a.cpp'])
emd = load('emd', ['/nowhere/emd.cu'], verbose=True)
d1, d2, i1, i2 = torch.zeros(1, 2), torch.zeros(1, 1), torch.zeros(1, 2).int(), torch.zeros(1, 1).int()
chamfer_3D.forward(torch.tensor([[[0., 0, 0], [3, 0, 0]]]), torch.tensor([[[2., 0, 0]]]), d1, d2, i1, i2)
print(d1.tolist(), i2.tolist(), load.__name__, emd.__name__)
try:
    load(name='another', sources=['/nowhere/b.cpp'])
except Exception as error:
    print('failed')
"""


def test_extensions_compiled_at_start(tmp_path):
    done = go(COMPILED_AT_START, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[[4.0, 1.0]] [[1]] load emd", "failed"]
    assert announced(done, "chamfer_3D: pure PyTorch stand-in") == announced(done, "emd: ") == 1


def test_extensions_whose_compiling_fails(tmp_path):
    (tmp_path / "bin").mkdir()
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.write_text("#!/bin/sh\necho nvcc: broken >&2\nexit 1\n")
    nvcc.chmod(0o755)
    # With an nvcc the host is left to compile, and gets the stand-in after the failure.
    script = COMPILED_AT_START.replace("find_loader('chamfer_3D') is not None", "find_loader('chamfer_3D') is None")
    done = go(script, tmp_path, cpu=False, cpu_mode=False, env={"CUDA_HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[[4.0, 1.0]] [[1]] load emd", "failed"]
    assert (
        announced(done, "chamfer_3D: compiling it failed (")
        == announced(done, "chamfer_3D: pure PyTorch stand-in")
        == 1
    )


def test_names_that_python_and_numpy_dropped(tmp_path: Path) -> None:
    script = """
import importlib
from apml_plugin.launch import old_hosts
if 'find_loader' in vars(importlib):
    del importlib.find_loader
    old_hosts.prepare('importlib', importlib)
print(importlib.find_loader('chamfer_3D').name, importlib.find_loader('json') is None, importlib.find_loader('nono'))
import numpy as np
print(np.zeros(2, dtype=np.float).dtype, np.dtype(np.int).kind, np.object is object, np.asscalar(np.ones(1)))
read = np.fromstring(b'ab', dtype=np.uint8, sep='')
read[0] = 1
print(read.tolist(), np.fromstring('1 2', sep=' ').tolist(), hasattr(np, 'nothing_such'), np.testing.__name__)
"""
    done = go(script, tmp_path)
    assert done.stdout.splitlines() == [
        "chamfer_3D False None", "float64 i True 1.0", "[1, 98] [1.0, 2.0] False numpy.testing",
    ], done.stderr  # fmt: skip
    assert announced(done, "importlib.find_loader, gone since Python 3.12") == 1
    assert announced(done, "chamfer_3D") == 0  # it was asked about, not used
    assert announced(done, "np.") == 2  # one of the names, and fromstring
    assert "np.float" in done.stderr


def test_pictures_as_old_hosts_draw_them(tmp_path):
    pytest.importorskip("matplotlib")
    script = """
import numpy as np
import matplotlib.pyplot as plt
from mpl_toolkits.mplot3d import Axes3D
fig = plt.figure(figsize=(2, 1))
ax = fig.gca(projection=Axes3D.name, adjustable='box')
assert fig.gca(projection='3d') is ax and fig.gca() is ax
ax.axis('scaled')
ax.scatter([0], [0], [0], zdir='z', c=[1], cmap='jet')
fig.canvas.draw()
image = np.fromstring(fig.canvas.tostring_rgb(), dtype=np.uint8, sep='')
image = image.reshape(fig.canvas.get_width_height()[::-1] + (3,))
want = np.asarray(fig.canvas.buffer_rgba())[..., :3]
print(image.shape, (image == want).all(), len(np.unique(image)) > 2)
"""
    done = go(script, tmp_path)
    assert done.stdout == "(100, 200, 3) True True\n", done.stderr
    assert announced(done, "Figure.gca(projection=...)") <= 1


OLD_IMAGES_AND_SCHEDULES = """
import numpy as np, torch
from timm.scheduler import CosineLRScheduler
from tensorboardX import SummaryWriter
optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
schedule = CosineLRScheduler(optimizer, t_initial=4, t_mul=2.0, decay_rate=0.5, cycle_limit=3)
schedule.step(4)
print(optimizer.param_groups[0]['lr'])
writer = SummaryWriter('logs')
writer.add_image('old', np.zeros((8, 6, 3), np.uint8), 0)
writer.add_image('new', np.zeros((3, 8, 6), np.uint8), 0)
writer.close()
"""


def test_images_and_schedules_as_tensorboardx_and_timm_took_them(tmp_path: Path) -> None:
    done = go(OLD_IMAGES_AND_SCHEDULES, tmp_path)
    assert done.stdout == "0.25\n", done.stderr
    assert announced(done, "CosineLRScheduler's t_mul") == 1


def test_an_image_with_channels_last_is_told_apart() -> None:
    given: list[object] = []

    class SummaryWriter:
        def add_image(self, tag, img_tensor, global_step=None, walltime=None, dataformats="CHW"):
            given.append(dataformats)

    module = ModuleType("tensorboardX.writer")
    module.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    old_hosts.prepare(module.__name__, module)
    writer = SummaryWriter()
    writer.add_image("a", np.zeros((8, 6, 3)), 1)
    writer.add_image("b", np.zeros((3, 8, 6)), 1)
    writer.add_image("c", np.zeros((3, 8, 3)), 1)
    writer.add_image("d", np.zeros((8, 6, 3)), 1, dataformats="CWH")
    writer.add_image("e", np.zeros((8, 6)), 1, dataformats="HW")
    assert given == ["HWC", "CHW", "CHW", "CWH", "HW"]


def test_modules_that_are_no_more(tmp_path: Path) -> None:
    (tmp_path / "pytorch_lightning" / "core").mkdir(parents=True)
    (tmp_path / "pytorch_lightning" / "__init__.py").touch()
    (tmp_path / "pytorch_lightning" / "core" / "__init__.py").write_text("class LightningModule: pass\n")
    script = """
import torch
from torch._six import container_abcs, string_classes, inf
from pytorch_lightning.core.lightning import LightningModule
import pytorch_lightning
assert LightningModule is pytorch_lightning.core.LightningModule
print(container_abcs.Mapping.__name__, isinstance(b'', string_classes), inf, hasattr(torch._six, 'with_metaclass'))
"""
    done = go(script.replace("torch._six,", "__import__('sys').modules['torch._six'],"), tmp_path)
    assert done.stdout == "Mapping True inf False\n", done.stderr
    assert announced(done, "torch._six.") == 1
    assert announced(done, "pytorch_lightning.core.lightning is pytorch_lightning.core") == 1


OTHER_TORCHVISION = {
    "__init__.py": "from torchvision import _meta_registrations, extension, transforms\n__version__ = '0.99'\n",
    "extension.py": "def _has_ops():\n    return False\n",
    "transforms.py": "class Compose: real = True\n",
    "_meta_registrations.py": """
import torch
import torchvision.extension

@torch.library.register_fake("torchvision::nms")
def meta_nms(dets, scores, iou_threshold):
    return dets

@torch.library.register_fake("torchvision::qnms")
def meta_qnms(dets, scores, iou_threshold):
    return dets
""",
}


def test_a_torchvision_built_for_another_pytorch(tmp_path: Path) -> None:
    place = tmp_path / "site-packages" / "torchvision"
    place.mkdir(parents=True)
    for name, text in OTHER_TORCHVISION.items():
        (place / name).write_text(text)
    script = "import torch, torchvision\nprint(torchvision.__version__, torchvision.transforms.Compose.real)\n"
    script += "try: torch.ops.torchvision.nms(torch.rand(1, 4), torch.rand(1), 0.5)\n"
    script += "except NotImplementedError: print('no operator')\n"
    done = go(script, tmp_path, look=True, path=str(place.parent))
    assert done.stdout == "0.99 True\nno operator\n", done.stderr
    assert announced(done, f"torchvision at {place}") == 1
    assert "(nms, qnms and more) fail when called" in done.stderr
    assert announced(done, "torchvision: stand-in") == 0


def parser(*spellings: str, **options: object) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser()
    made.add_argument("--config")
    if spellings:
        made.add_argument(*spellings, **options)  # type: ignore[arg-type]
    made.add_argument("rest", nargs="*")
    return made


@pytest.mark.parametrize(
    ("spellings", "words", "expected"),
    [
        (["--local_rank"], ["--config", "a"], ["--local_rank", "3", "--config", "a"]),
        (["--local-rank"], ["x"], ["--local-rank", "3", "x"]),
        (["--local_rank"], ["--local-rank=1", "x"], ["--local_rank=1", "x"]),
        (["--local_rank"], ["--local-rank", "1"], ["--local_rank", "1"]),
        (["--local-rank"], ["--local_rank=1"], ["--local-rank=1"]),
        (["--local_rank"], ["--local_rank=1"], ["--local_rank=1"]),
        (["--local_rank", "--local-rank"], ["--local-rank=1"], ["--local-rank=1"]),
        (["--local_rank"], ["--", "--local-rank=1"], ["--local_rank", "3", "--", "--local-rank=1"]),
        ([], ["--local-rank=1"], ["--local-rank=1"]),
        (["--rank"], ["--config", "a"], ["--config", "a"]),
    ],
)
def test_the_spelling_that_the_parser_knows(
    spellings: list[str], words: list[str], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(environment.TOLD, "local_rank")
    assert old_hosts.with_local_rank(parser(*spellings), words, "3") == expected


def test_a_flag_of_that_name_is_left_alone() -> None:
    assert old_hosts.with_local_rank(parser("--local_rank", action="store_true"), ["a"], "3") == ["a"]


SCRIPT = """
import argparse, sys
class Own(argparse.ArgumentParser):
    pass
p = Own()
p.add_argument('--local_rank', type=int, default=0)
p.add_argument('words', nargs='*')
print(p.parse_args(), p.parse_args(['of its own']), p.parse_known_args()[0].local_rank, sys.argv[1:])
"""


@pytest.mark.parametrize(("rank", "expected"), [("1", 1), (None, 0), ("", 0)])
def test_local_rank_in_a_run(tmp_path: Path, rank: str | None, expected: int) -> None:
    (tmp_path / "go.py").write_text(SCRIPT)
    command, environ = planned(tmp_path, "go.py", "--", "a", "b")
    if rank is not None:
        environ["LOCAL_RANK"] = rank
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60)
    other = "Namespace(local_rank=0, words=['of its own'])"
    first = f"Namespace(local_rank={expected}, words=['a', 'b'])"
    assert done.stdout == f"{first} {other} {expected} ['--', 'a', 'b']\n", done.stderr
    announcement = "[apml] --local_rank is not given: it gets LOCAL_RANK of the launcher\n"
    assert done.stderr == (announcement if expected else "")
