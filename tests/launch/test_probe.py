"""Which modules get a stand-in: none that is installed; what is wrong with that one is reported."""

from __future__ import annotations

from pathlib import Path

import pytest
from forking import clean_environment
from launch.running import announced, run

from apml_plugin.launch import probe


def go(script: str, folder: Path, **options: object):
    (folder / "go.py").write_text(script)
    return run(folder, "go.py", look=True, **{"cpu": True, **options})


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
    place = installed(
        tmp_path, timm=broken, pytorch3d__ops=broken, pytorch3d__loss="from pytorch3d import ops\n",
        tensorboardX="VERSION = 1\n", open3d="import nowhere_to_be_found\n",
    )  # fmt: skip
    script = """
for name in ('timm', 'pytorch3d.loss'):
    try:
        __import__(name)
    except RuntimeError as error:
        print(error)
import tensorboardX; print(tensorboardX.VERSION)
import open3d
"""
    done = go(script, tmp_path, path=place)
    assert done.stdout == "operator other::thing does not exist\n" * 2 + "1\n", done.stderr
    assert announced(done, f"timm at {place}/timm.py does not import (RuntimeError: operator other::thing") == 1
    assert announced(done, f"pytorch3d.ops at {place}/pytorch3d/ops.py does not import") == 1
    assert announced(done, f"tensorboardX at {place}/tensorboardX.py has no SummaryWriter: is it another package") == 1
    assert announced(done, "open3d at ") == 1
    assert done.stderr.count("It is installed, so no stand-in takes its place: repair it or uninstall it") == 5
    assert "stand-in with" not in done.stderr
    # An error that nobody catches is the real one.
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("ModuleNotFoundError: No module named 'nowhere_to_be_found'")
    assert "apml_plugin/standins" not in done.stderr


def test_what_was_compiled_for_cuda_is_set_aside_without_a_device(tmp_path: Path) -> None:
    place = installed(tmp_path, knn_cuda="raise AssertionError('CUDA')\n", chamfer="forward = backward = len\n")
    script = "import knn_cuda, chamfer; print(knn_cuda.KNN.__name__, chamfer.forward is len)\n"
    done = go(script, tmp_path, path=place)
    assert done.stdout == "KNN False\n", done.stderr
    why = "compiled for CUDA, and PyTorch sees no CUDA device"
    assert f"pure PyTorch stand-in, slower than the real one (the one at {place}/knn_cuda.py is {why})" in done.stderr
    assert f"(the one at {place}/chamfer.py is {why})" in done.stderr


def test_what_the_probe_tells_the_plan(tmp_path: Path) -> None:
    place = installed(tmp_path, timm="import nowhere\n", knn_cuda="KNN = 1\n", tensorboardX="SummaryWriter = 1\n")
    names = ["timm", "knn_cuda", "tensorboardX", "emd"]
    found = probe.look(str(tmp_path), clean_environment(PYTHONPATH=place), names)
    assert found.broken == {"timm": f"{place}/timm.py: ModuleNotFoundError: No module named 'nowhere'"}
    assert list(found.standins) == ([] if found.cuda else ["knn_cuda"]) + ["emd"]


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
    done = go(script, tmp_path)
    assert done.stdout == f"{works} forward\n", done.stderr
    assert announced(done, "mm3d_pn2: pure PyTorch stand-in") == (0 if works else 1)
    assert ("cannot import name 'ext'" in done.stderr) != works
    assert "emd: stand-in" in done.stderr


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
    done = go(script, tmp_path, path=place)
    assert done.stdout == "False KNN\n", done.stderr
    assert announced(done, "torchvision: stand-in") == 1
    assert done.returncode == 0


def test_real_modules_win_and_broken_ones_give_their_reason(tmp_path: Path):
    (tmp_path / "chamfer.py").write_text("forward = backward = 'real'\n")
    (tmp_path / "emd.py").write_text("import os; os._exit(9)\n")
    (tmp_path / "gridding").mkdir()  # a folder of sources: imports, but is not the module
    (tmp_path / "pointnet2_ops").mkdir()
    (tmp_path / "pointnet2_ops" / "__init__.py").write_text("raise ImportError('undefined symbol: _ZN2at')\n")
    script = "import chamfer, emd, gridding, pointnet2_ops\nprint(chamfer.forward, emd.__file__)\n"
    (tmp_path / "go.py").write_text(script)
    done = run(tmp_path, "go.py", look=True)
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
    off = run(tmp_path, "go.py", look=True, standins=False)
    assert off.returncode == 9
