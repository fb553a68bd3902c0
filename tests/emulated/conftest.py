"""The CUDA ops' own source, built for the CPU: threads are fibers (emulated_cuda.h), tensors are CPU tensors."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

HERE = Path(__file__).parent
SOURCES = HERE.parent.parent / "cuda_ext"
FLAGS = [
    "-O1",
    "-fPIC",
    "-std=c++20",
    "-ffp-contract=off",
    "-DAPML_EMULATED",
    "-DAPML_MAX_GRID_Y=3",
    "-Wall",
    "-Wno-unknown-pragmas",
]


@pytest.fixture(scope="session")
def ops() -> Any:
    """``torch.ops.apml_emulated``: match, plan, nearest and chamfer as a GPU would compute them."""
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if sys.platform != "linux" or not compiler:
        pytest.skip("needs a C++ compiler on Linux to run the CUDA sources on the CPU")
    torch.ops.load_library(str(_built(compiler)))
    return torch.ops.apml_emulated


def _built(compiler: str) -> Path:
    """The library for these sources and this torch: built once, by whichever test process comes first."""
    import fcntl

    from torch.utils.cpp_extension import include_paths, library_paths

    digest = hashlib.sha256(f"{torch.__version__} {sys.version} {compiler} {FLAGS}".encode())
    used = [*HERE.glob("*.h"), *HERE.glob("*.cpp"), *SOURCES.glob("*.h")]
    for path in sorted([*used, *SOURCES.glob("common/*.h"), *SOURCES.glob("cuda/*.*")]):
        digest.update(path.read_bytes())
    folder = Path(tempfile.gettempdir()) / f"apml_emulated_{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    library = folder / f"{digest.hexdigest()[:20]}.so"
    with open(folder / "lock", "w") as lock:  # gone with the process that holds it
        fcntl.flock(lock, fcntl.LOCK_EX)
        if library.exists():
            return library
        for old in [*folder.glob("*.so"), *folder.glob("*.o")]:
            old.unlink()
        includes = [f"-I{HERE}"] + [f"-isystem{path}" for path in include_paths()]
        abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"
        builds, objects = [], []
        for source in sorted(HERE.glob("*.cpp")):
            objects.append(str(folder / f"{source.stem}.o"))
            command = [compiler, *FLAGS, abi, *includes, "-c", str(source), "-o", objects[-1]]
            builds.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        for build in builds:
            errors = build.communicate()[1]
            assert build.returncode == 0, errors
        links = [f"-L{path}" for path in library_paths()] + ["-lc10", "-ltorch_cpu", "-ltorch"]
        unfinished = library.with_suffix(".unfinished")
        subprocess.run([compiler, "-shared", *objects, *links, "-o", str(unfinished)], check=True)
        unfinished.rename(library)
    return library
