"""How ``apml_plugin._C`` is compiled: sources by naming convention, flags, and the commands that setup.py runs.

Tested on Linux with g++. The flags for macOS and Windows are untested.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from decide import Decision, Found, first_error
from setuptools import Extension
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parents[1]
MODULE = "apml_plugin._C"
ARCHITECTURES = "8.0;8.6;8.9;9.0+PTX"  # without a GPU to ask: A100, RTX 30 and 40, H100; newer ones from PTX


def extension(decision: Decision) -> Extension:
    """``apml_plugin._C``: cuda_ext/*.cpp and cpu/*.cpp always, cuda/*.cpp and *.cu with CUDA."""
    from torch.utils import cpp_extension

    kinds = ["*.cpp", "cpu/*.cpp", *(["cuda/*.cpp", "cuda/*.cu"] if "cuda" in decision.ops else [])]
    make = cpp_extension.CUDAExtension if "cuda" in decision.ops else cpp_extension.CppExtension
    compile_args, link_args = flags()
    return make(
        MODULE,
        [str(path.relative_to(ROOT)) for kind in kinds for path in sorted((ROOT / "cuda_ext").glob(kind))],
        include_dirs=[str(ROOT / "cuda_ext")],
        depends=[str(path.relative_to(ROOT)) for path in sorted((ROOT / "cuda_ext").rglob("*.*h"))],
        extra_compile_args=compile_args,
        extra_link_args=link_args,
    )


def flags() -> tuple[dict[str, list[str]], list[str]]:
    """Of the compilers and of the linker. No product is fused into a sum: equal distances must come out equal."""
    import torch

    nvcc = ["-O3", "-fmad=false", "-lineinfo"]
    if sys.platform == "win32":
        return {"cxx": ["/O2", "/fp:precise", "/openmp"], "nvcc": nvcc}, []
    cxx = ["-O3", "-g0", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
    cxx += ["-Wno-psabi"]  # vectors are passed between our own functions only
    nvcc += ["-Xcompiler", "-ffp-contract=off"]
    if not torch.backends.openmp.is_available():
        return {"cxx": cxx, "nvcc": nvcc}, []
    # at::parallel_for is a template: without -fopenmp here it would run on one thread. The OpenMP library is not
    # linked but found in PyTorch's own: a second one would know nothing of torch.set_num_threads.
    if sys.platform == "darwin":
        has_header = Path(torch.__file__).with_name("include").joinpath("omp.h").exists()
        return {"cxx": cxx + ["-Xclang", "-fopenmp"] * has_header, "nvcc": nvcc}, []
    told = subprocess.run([*shlex.split(os.environ["CXX"]), "--version"], capture_output=True, text=True).stdout
    clang = "clang" in told  # its calls are not in the libgomp of PyTorch's wheels
    return {"cxx": [*cxx, "-fopenmp"], "nvcc": nvcc}, ["-fopenmp"] if clang else []


def build_ext_class(wish: str, decision: Decision, found: Found) -> type:
    from torch.utils.cpp_extension import BuildExtension

    class BuildOps(BuildExtension):  # type: ignore[misc]
        """Compiles into build/, so that the next install compiles only what changed. In ``auto`` it never fails."""

        def finalize_options(self) -> None:
            super().finalize_options()
            self.build_temp = str(ROOT / "build" / f"ops-{found.torch}-{sys.implementation.cache_tag}")

        def run(self) -> None:
            left, compiler, inplace = decision, self.compiler, self.inplace
            if "cuda" in left.ops:
                _choose_architectures()
            while self.extensions:
                try:
                    with printed_to(ROOT / "build" / "ops.log") as log:
                        super().run()
                    break
                except Exception as error:  # the compiler's, setuptools' and PyTorch's all differ
                    if wish != "auto":
                        raise
                    self.compiler, self.inplace = compiler, inplace
                    left = self._give_up(left, log.read_text(errors="replace"), error)
            record(left, found, Path(self.get_ext_fullpath(MODULE)).parent)

        def _give_up(self, failed: Decision, output: str, error: Exception) -> Decision:
            """Leaves the last device out: its binaries and, if none remains, the extension."""
            cause = first_error(output) or str(error)
            why = f"the compile failed ({cause}); all output: build/ops.log, or pip install -v"
            left = failed.without(failed.ops[-1], why)
            print("\n".join(output.splitlines()[-15:]), f"[apml-plugin] {left}", sep="\n", file=sys.stderr)
            name = self.get_ext_filename(MODULE)
            for binary in (Path(self.build_lib, name), *([ROOT / name] if self.inplace else [])):
                binary.unlink(missing_ok=True)
            if left.ops:
                vars(self.extensions[0]).update(vars(extension(left)))
            else:
                self.extensions.clear()
            return left

    return BuildOps


def _choose_architectures() -> None:
    """Without a GPU to ask, PyTorch would find no architecture to compile for."""
    import torch

    if not os.environ.get("TORCH_CUDA_ARCH_LIST") and not torch.cuda.device_count():
        os.environ["TORCH_CUDA_ARCH_LIST"] = ARCHITECTURES


@contextmanager
def printed_to(path: Path) -> Iterator[Path]:
    """What this process and those it starts print goes to the file as well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    end, start = os.pipe()

    def copy() -> None:
        with open(end, "rb") as pipe, path.open("wb") as file:
            for line in pipe:
                file.write(line)
                os.write(kept[0], line)

    thread = threading.Thread(target=copy)
    thread.start()
    os.dup2(start, 1)
    os.dup2(start, 2)
    os.close(start)
    try:
        yield path
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(kept[0], 1)
        os.dup2(kept[1], 2)
        thread.join()
        os.close(kept[0])
        os.close(kept[1])


def record(decision: Decision, found: Found, folder: Path) -> None:
    """Writes what was built, for which PyTorch and Python, and why the rest was not."""
    architectures = os.environ.get("TORCH_CUDA_ARCH_LIST") or "the GPUs of the machine that built it"
    built = {
        "ops": decision.ops,
        "missing": decision.missing,
        "torch": found.torch,
        "python": sys.implementation.cache_tag,
        "architectures": architectures if "cuda" in decision.ops else None,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "_build.json").write_text(json.dumps(built, indent=2) + "\n")


def build_py_class(decision: Decision, found: Found) -> type[build_py]:
    class BuildPython(build_py):
        """Where no ops are built, this writes the record, and removes what an earlier install left in place."""

        def run(self) -> None:
            super().run()
            if decision.ops:
                return
            if self.editable_mode:
                (ROOT / "apml_plugin" / f"_C{sysconfig.get_config_var('EXT_SUFFIX')}").unlink(missing_ok=True)
            record(decision, found, (ROOT if self.editable_mode else Path(self.build_lib)) / "apml_plugin")

    return BuildPython
