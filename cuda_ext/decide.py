"""What to build on this machine, and why not the rest: decided from plain facts, which are asked for separately."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

WISHES = ("auto", "cpu", "cuda", "off")
SLOWER = "APML then uses the slower `sparse` backend, in PyTorch and SciPy"


@dataclass(frozen=True)
class Found:
    """What the machine has; None where there is none."""

    torch: str | None
    torch_cuda: str | None  # the CUDA release this PyTorch is built for
    nvcc: str | None  # the release of nvcc
    compiler_problem: str | None  # why C++ cannot be compiled


@dataclass(frozen=True)
class Decision:
    """The devices to build ops for, and for each of the others why not."""

    ops: tuple[str, ...]
    missing: dict[str, str]

    def without(self, device: str, reason: str) -> Decision:
        return Decision(tuple(op for op in self.ops if op != device), {device: reason, **self.missing})

    def __str__(self) -> str:
        names = {"cpu": "CPU", "cuda": "CUDA"}
        if not self.ops:
            return f"no compiled ops: {self.missing['cpu']}. {SLOWER}"
        left_out = [f"; no {names[device]} ops: {reason}" for device, reason in self.missing.items()]
        return f"compiled ops for {' and '.join(names[op] for op in self.ops)}{''.join(left_out)}"


def decide(wish: str, found: Found) -> Decision:
    """What to build.

    Raises:
        SystemExit: ``wish`` is none of WISHES, or asks for what this machine cannot build.
    """
    if wish not in WISHES:
        raise SystemExit(f"APML_BUILD={wish!r} is unknown: use {', '.join(WISHES)}")
    cpu = "APML_BUILD=off was set" if wish == "off" else _why_no_cpu(found)
    cuda = cpu or ("APML_BUILD=cpu was set" if wish == "cpu" else _why_no_cuda(found))
    missing = {device: why for device, why in (("cpu", cpu), ("cuda", cuda)) if why}
    for device in {"cpu": ("cpu",), "cuda": ("cpu", "cuda")}.get(wish, ()):
        if device in missing:
            raise SystemExit(f"APML_BUILD={wish} cannot be had: {missing[device]}")
    return Decision(tuple(device for device in ("cpu", "cuda") if device not in missing), missing)


def _why_no_cpu(found: Found) -> str | None:
    if found.torch is None:
        return "PyTorch cannot be imported while building; install it first, then use pip's --no-build-isolation"
    return found.compiler_problem


def _why_no_cuda(found: Found) -> str | None:
    if found.torch_cuda is None:
        return "this PyTorch is built without CUDA"
    if found.nvcc is None:
        return f"nvcc was not found; install the CUDA toolkit {found.torch_cuda} or set CUDA_HOME"
    if found.nvcc.split(".")[0] != found.torch_cuda.split(".")[0]:
        return f"nvcc is of CUDA {found.nvcc}, PyTorch of {found.torch_cuda}; set CUDA_HOME to a {found.torch_cuda}"
    return None


def look() -> Found:
    """Asks the machine. No GPU is needed."""
    scripts = sysconfig.get_path("scripts")  # where pip puts ninja, also when the environment is not activated
    os.environ["PATH"] = os.pathsep.join([scripts, os.environ.get("PATH", "")])
    if home := cuda_home():
        os.environ["CUDA_HOME"] = home  # PyTorch's builder obeys it
    try:
        import torch
        from torch.utils.cpp_extension import CUDA_HOME
    except (ImportError, OSError):
        return Found(None, None, None, None)
    nvcc = None
    if torch.version.cuda and CUDA_HOME:
        try:
            told = subprocess.run([Path(CUDA_HOME, "bin", "nvcc"), "--version"], capture_output=True, text=True)
            nvcc = re.search(r"release (\d+\.\d+)", told.stdout)
        except OSError:
            pass
    if sys.platform == "win32":  # setuptools searches for Visual Studio, and says so if there is none
        return Found(torch.__version__, torch.version.cuda, nvcc and nvcc[1], None)
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("c++", "g++", "clang++")), None)
    if compiler:
        os.environ["CXX"] = compiler  # what compiles and what links both obey it
    return Found(torch.__version__, torch.version.cuda, nvcc and nvcc[1], compiler_problem(compiler))


def cuda_home() -> str | None:
    """The toolkit to compile with. PyTorch's own guess takes any nvcc in PATH, be it a script that starts another."""
    if told := os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH"):
        return told
    nvcc = shutil.which("nvcc")
    homes = [*([Path(nvcc).resolve().parents[1]] if nvcc else []), Path("/usr/local/cuda"), Path("/opt/cuda")]
    for home in homes:
        headers = (home / "include", *home.glob("targets/*/include"))
        if (home / "bin" / "nvcc").exists() and any((folder / "cuda_runtime.h").exists() for folder in headers):
            return str(home)
    return None


def compiler_problem(compiler: str | None) -> str | None:
    """Why three lines that include Python.h do not compile and link, or None."""
    if compiler is None:
        return "no C++ compiler was found; install one (Debian, Ubuntu: apt install g++)"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.cpp")
        source.write_text("#include <Python.h>\n#include <vector>\nstd::vector<int> probe{PY_MAJOR_VERSION};\n")
        include = {f"-I{sysconfig.get_path(name)}" for name in ("include", "platinclude")}
        late = ["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else []
        command = [*shlex.split(compiler), "-shared", "-fPIC", *include, *late, str(source), "-o", f"{source}.so"]
        try:
            ran = subprocess.run(command, capture_output=True, text=True)
        except OSError as error:
            return f"the C++ compiler {compiler} does not run ({error.strerror}); set CXX or install one"
    if ran.returncode == 0:
        return None
    if re.search(r"Python\.h.*(no such|not found)", ran.stderr, re.IGNORECASE):
        return "Python.h is missing; install Python's headers (Debian, Ubuntu: apt install python3-dev)"
    why = first_error(ran.stderr) or "it does not say why"
    return f"the C++ compiler {compiler} fails on three lines ({why}); set CXX or install another"


def first_error(output: str) -> str | None:
    """The first line of a compiler's output that speaks of an error."""
    line = re.search(r"^.*\b(error|fatal)\b.*$", output, re.IGNORECASE | re.MULTILINE)
    return line and line[0].strip()[:200]
