"""What `apml run` does for hosts written for older libraries, in real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from apml_plugin.launch import dropped

APML = [sys.executable, "-m", "apml_plugin", "run"]


def run(script: str, folder: Path, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
    (folder / "go.py").write_text(script)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("APML_RUN", "PYTHONPATH", "RANK", "CUDA_"))}
    path = [str(Path(__file__).parents[2]), *env.pop("APML_TEST_PATH", "").split()]
    clean.update(PYTHONPATH=os.pathsep.join(path), OMP_NUM_THREADS="1", MPLBACKEND="Agg", **env)
    command = [*APML, *options, "go.py"]
    return subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, timeout=120)


def told(done: subprocess.CompletedProcess[str], start: str) -> int:
    return sum(line.startswith("[apml] " + start) for line in done.stderr.splitlines())


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
    print('refused')
"""


def test_extensions_compiled_at_start(tmp_path):
    done = run(COMPILED_AT_START, tmp_path, "--cpu")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[[4.0, 1.0]] [[1]] load emd", "refused"]
    assert told(done, "chamfer_3D: pure PyTorch stand-in") == told(done, "emd: ") == 1


def test_extensions_whose_compiling_fails(tmp_path):
    (tmp_path / "bin").mkdir()
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.write_text("#!/bin/sh\necho nvcc: broken >&2\nexit 1\n")
    nvcc.chmod(0o755)
    # With an nvcc the host is left to compile, and gets the stand-in after the failure.
    script = COMPILED_AT_START.replace("find_loader('chamfer_3D') is not None", "find_loader('chamfer_3D') is None")
    done = run(script, tmp_path, "--no-cpu-mode", CUDA_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[[4.0, 1.0]] [[1]] load emd", "refused"]
    assert told(done, "chamfer_3D: compiling it failed (") == told(done, "chamfer_3D: pure PyTorch stand-in") == 1


def test_a_python_without_find_loader(tmp_path):
    script = """
import importlib
from apml_plugin.launch import dropped
if 'find_loader' in vars(importlib):
    del importlib.find_loader
    dropped.prepare(importlib)
print(importlib.find_loader('chamfer_3D').name, importlib.find_loader('json') is None, importlib.find_loader('nono'))
"""
    done = run(script, tmp_path, "--cpu")
    assert done.stdout == "chamfer_3D False None\n", done.stderr
    assert told(done, "importlib.find_loader, gone since Python 3.12") == 1
    assert told(done, "chamfer_3D") == 0  # it was asked about, not used


def test_names_that_numpy_dropped(tmp_path):
    script = """
import numpy as np
print(np.zeros(2, dtype=np.float).dtype, np.dtype(np.int).kind, np.object is object, np.asscalar(np.ones(1)))
read = np.fromstring(b'ab', dtype=np.uint8, sep='')
read[0] = 1
print(read.tolist(), np.fromstring('1 2', sep=' ').tolist(), hasattr(np, 'nothing_such'), np.testing.__name__)
"""
    done = run(script, tmp_path, "--cpu")
    assert done.stdout.splitlines() == ["float64 i True 1.0", "[1, 98] [1.0, 2.0] False numpy.testing"], done.stderr
    assert told(done, "np.float") == 1 or told(done, "np.") == 1
    quiet = run("import numpy; numpy.zeros(2)", tmp_path, "--cpu")
    assert told(quiet, "np.") == 0


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
    done = run(script, tmp_path, "--cpu")
    assert done.stdout == "(100, 200, 3) True True\n", done.stderr
    assert told(done, "Figure.gca(projection=...)") <= 1


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
    done = run(OLD_IMAGES_AND_SCHEDULES, tmp_path, "--cpu")
    assert done.stdout == "0.25\n", done.stderr
    assert told(done, "CosineLRScheduler's t_mul") == 1


def test_an_image_with_channels_last_is_told_apart() -> None:
    given: list[object] = []

    class SummaryWriter:
        def add_image(self, tag, img_tensor, global_step=None, walltime=None, dataformats="CHW"):
            given.append(dataformats)

    module = ModuleType("tensorboardX.writer")
    module.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    dropped.prepare(module)
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
    done = run(script.replace("torch._six,", "__import__('sys').modules['torch._six'],"), tmp_path, "--cpu")
    assert done.stdout == "Mapping True inf False\n", done.stderr
    assert told(done, "torch._six.") == 1
    assert told(done, "pytorch_lightning.core.lightning is pytorch_lightning.core") == 1


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
    done = run(script, tmp_path, "--cpu", APML_TEST_PATH=str(place.parent))
    assert done.stdout == "0.99 True\nno operator\n", done.stderr
    assert told(done, f"torchvision at {place}") == 1
    assert "(nms, qnms and more) fail when called" in done.stderr
    assert told(done, "torchvision: stand-in") == 0
