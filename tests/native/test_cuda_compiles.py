"""nvcc compiles every kernel and the host code fits PyTorch's CUDA headers; neither needs a GPU."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils.cpp_extension import include_paths

SOURCES = Path(__file__).parent.parent.parent / "cuda_ext" / "cuda"
sys.path.insert(0, str(SOURCES.parent))
from decide import cuda_home  # noqa: E402

HOME = cuda_home()
NVCC = shutil.which("nvcc") or (shutil.which(f"{HOME}/bin/nvcc") if HOME else None)
COMPILER = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")

pytestmark = pytest.mark.skipif(NVCC is None, reason="needs nvcc (no GPU)")


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("source", sorted(path.name for path in SOURCES.glob("*.cu")))
def test_kernels_compile(source: str, tmp_path: Path) -> None:
    machines = [f"-gencode=arch=compute_{n},code=sm_{n}" for n in (80, 90)]
    flags = ["-std=c++17", "-O3", "-fmad=false", "--expt-relaxed-constexpr", "-Werror=all-warnings", "--threads=2"]
    run(str(NVCC), "-c", *machines, *flags, str(SOURCES / source), "-o", str(tmp_path / "kernels.o"))


@pytest.mark.parametrize("source", sorted(path.name for path in SOURCES.glob("*.cpp")))
def test_host_code_compiles(source: str) -> None:
    if COMPILER is None or HOME is None:
        pytest.skip("needs a C++ compiler and the CUDA toolkit's headers")
    toolkit = [Path(HOME, "include"), *Path(HOME).glob("targets/*/include")]
    includes = [part for path in [*include_paths(), *map(str, toolkit)] for part in ("-isystem", path)]
    # The macro stands for a header that only CUDA builds of PyTorch carry.
    flags = ["-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-DC10_CUDA_NO_CMAKE_CONFIGURE_FILE"]
    run(COMPILER, *flags, *includes, str(SOURCES / source))
