"""What `apml run` does for hosts written for older libraries, in real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

APML = [sys.executable, "-m", "apml_plugin", "run"]


def run(script: str, folder: Path, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
    (folder / "go.py").write_text(script)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("APML_RUN", "PYTHONPATH", "RANK", "CUDA_"))}
    clean.update(PYTHONPATH=str(Path(__file__).parents[2]), OMP_NUM_THREADS="1", MPLBACKEND="Agg", **env)
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
from apml_plugin.launch import old_importlib
if hasattr(importlib, 'find_loader') and importlib.find_loader is not old_importlib.find_loader:
    del importlib.find_loader
    old_importlib.prepare(importlib)
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
