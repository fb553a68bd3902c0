"""What setup.py builds and says, from plain facts; and one real build of a few lines of C++."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from apml_plugin.cli import doctor
from apml_plugin.matching import extension
from apml_plugin.matching.extension import Record

ROOT = Path(__file__).parents[2]


@pytest.fixture
def decide(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "cuda_ext"))
    return importlib.import_module("decide")


CPU_TORCH = {"torch": "2.13.0+cpu", "torch_cuda": None, "nvcc": None, "compiler_problem": None}
CUDA_TORCH = {"torch": "2.13.0+cu130", "torch_cuda": "13.0", "nvcc": "13.1", "compiler_problem": None}


@pytest.mark.parametrize(
    ("wish", "facts", "ops", "reason"),
    [
        ("auto", CPU_TORCH, ("cpu",), {"cuda": "built without CUDA"}),
        ("cpu", CUDA_TORCH, ("cpu",), {"cuda": "APML_BUILD=cpu"}),
        ("auto", CUDA_TORCH, ("cpu", "cuda"), {}),
        ("cuda", CUDA_TORCH, ("cpu", "cuda"), {}),
        ("off", CUDA_TORCH, (), {"cpu": "APML_BUILD=off", "cuda": "APML_BUILD=off"}),
        ("auto", CUDA_TORCH | {"nvcc": None}, ("cpu",), {"cuda": "nvcc was not found"}),
        ("auto", CUDA_TORCH | {"nvcc": "12.6"}, ("cpu",), {"cuda": "nvcc is of CUDA 12.6"}),
        ("auto", CUDA_TORCH | {"compiler_problem": "no compiler"}, (), {"cpu": "no compiler", "cuda": "no compiler"}),
        ("auto", dict.fromkeys(CPU_TORCH), (), {"cpu": "--no-build-isolation", "cuda": "--no-build-isolation"}),
    ],
)
def test_what_is_built_and_why_not_the_rest(
    decide: ModuleType, wish: str, facts: dict[str, str | None], ops: tuple[str, ...], reason: dict[str, str]
) -> None:
    decision = decide.decide(wish, decide.Found(**facts))
    assert decision.ops == ops
    assert decision.missing.keys() == reason.keys()
    for device, words in reason.items():
        assert words in decision.missing[device]
        assert words in str(decision)
    assert ("`sparse` backend" in str(decision)) == (not ops)


@pytest.mark.parametrize(
    ("wish", "facts", "words"),
    [
        ("gpu", CUDA_TORCH, "'gpu' is unknown: use auto, cpu, cuda, off"),
        ("cuda", CPU_TORCH, "built without CUDA"),
        ("cuda", CUDA_TORCH | {"nvcc": None}, "nvcc was not found"),
        ("cpu", CPU_TORCH | {"compiler_problem": "no compiler"}, "no compiler"),
    ],
)
def test_a_build_that_is_required_and_impossible_is_an_error(
    decide: ModuleType, wish: str, facts: dict[str, str | None], words: str
) -> None:
    with pytest.raises(SystemExit, match=words):
        decide.decide(wish, decide.Found(**facts))


def test_the_reason_when_a_compiler_does_not_work(decide: ModuleType, tmp_path: Path) -> None:
    assert "install one" in decide.compiler_problem(None)
    assert "does not run" in decide.compiler_problem(str(tmp_path / "absent"))
    complaining = tmp_path / "complaining"
    complaining.write_text("#!/bin/sh\necho 'probe.cpp:1:10: fatal error: Python.h: no such file' >&2\nexit 1\n")
    complaining.chmod(0o755)
    assert "python3-dev" in decide.compiler_problem(str(complaining))
    complaining.write_text("#!/bin/sh\necho 'note' >&2\necho 'error: no licence' >&2\nexit 1\n")
    assert "(error: no licence)" in decide.compiler_problem(str(complaining))


def test_no_two_sources_share_an_object_file() -> None:
    """The build names object files after sources without their suffix: nearest.cpp beside nearest.cu would clash."""
    sources = [path for path in (ROOT / "cuda_ext").rglob("*") if path.suffix in (".cpp", ".cu")]
    objects = Counter(path.with_suffix("") for path in sources)
    assert [path for path, times in objects.items() if times > 1] == []


def test_doctor_says_what_was_built_or_how_to(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    here = {"torch": torch.__version__, "python": sys.implementation.cache_tag, "architectures": None}
    record: Record | None = None
    monkeypatch.setattr(extension, "read_record", lambda: record)
    monkeypatch.setattr(
        extension, "loading_problem", extension.loading_problem.__wrapped__
    )  # not the one that remembers
    monkeypatch.setattr(torch.version, "cuda", None)
    rebuild = extension.rebuild_command()

    assert "nothing was compiled" in doctor.compiled_ops()
    looks = extension.loading_problem
    monkeypatch.setattr(extension, "loading_problem", lambda: None)
    record = Record(("cpu",), {"cuda": "no nvcc"}, **here)
    assert doctor.compiled_ops() == f"CPU, built for PyTorch {torch.__version__}; none for CUDA: no nvcc"
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert doctor.compiled_ops().endswith(f"no nvcc. Build them with: {rebuild}")
    record = Record(("cpu", "cuda"), {}, **(here | {"architectures": "9.0"}))
    assert doctor.compiled_ops() == f"CPU and CUDA (9.0), built for PyTorch {torch.__version__}"
    monkeypatch.setattr(extension, "loading_problem", lambda: "they do not load")
    assert doctor.compiled_ops() == "none: they do not load"
    monkeypatch.setattr(extension, "loading_problem", looks)
    record = Record(("cpu",), {}, **(here | {"torch": "2.4.0"}))
    assert "built for PyTorch 2.4.0" in doctor.compiled_ops()
    assert rebuild in doctor.compiled_ops()


def test_a_record_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    assert extension.read_record(tmp_path) is None
    (tmp_path / "_build.json").write_text('{"ops": ["cpu"], "surprise": 1}')
    assert extension.read_record(tmp_path) is None
    written = {"missing": {"cuda": "no nvcc"}, "torch": "2.4.0", "python": "cpython-311", "architectures": None}
    (tmp_path / "_build.json").write_text(json.dumps({"ops": ["cpu"], **written}))
    assert extension.read_record(tmp_path) == Record(("cpu",), **written)


def test_why_ops_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    here = (torch.__version__, sys.implementation.cache_tag, None)
    assert extension.unusable(None) == "nothing was compiled here yet"
    assert extension.unusable(Record(("cpu",), {}, *here)) is None
    assert extension.unusable(Record((), {"cpu": "APML_BUILD=off"}, *here)) == "APML_BUILD=off"
    assert extension.unusable(Record((), {"cuda": "no nvcc"}, *here)) == "none were built"
    stale = extension.unusable(Record(("cpu",), {}, "2.4.0", "cpython-38", None))
    assert stale == f"they were built for PyTorch 2.4.0 and cpython-38, and this is PyTorch {here[0]} and {here[1]}"

    record: Record | None = None
    monkeypatch.setattr(extension, "read_record", lambda: record)
    monkeypatch.setattr(extension, "loading_problem", extension.loading_problem.__wrapped__)
    monkeypatch.setattr(extension, "_missing_kernels", extension._missing_kernels.__wrapped__)
    monkeypatch.setattr(extension, "has_kernel", lambda op, device: device == "cpu")
    rebuild = extension.rebuild_command()
    problem = f"there are no compiled ops: nothing was compiled here yet (`{rebuild}` builds them)"
    assert extension.missing("cpu") == extension.problem("cpu", 3) == problem
    assert extension.problem("cpu", 4) == "the compiled ops take up to 3 coordinates, and these clouds have 4"
    monkeypatch.setattr(extension, "loading_problem", lambda: None)
    assert extension.problem("cpu", 3) is None
    only = "the compiled ops have no part for {} tensors: only cpu and cuda can have one"
    assert extension.missing("cuda") == only.format("cuda")
    record = Record(("cpu",), {"cuda": "no nvcc"}, *here)
    assert extension.missing("cuda") == "the compiled ops have no part for cuda tensors: no nvcc"
    assert extension.missing("mps") == only.format("mps")


def test_how_to_build_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("APML_BUILD", "cpu")
    assert extension.rebuild_command() == f"pip install --no-build-isolation -e {ROOT}"
    monkeypatch.setattr(extension, "PACKAGE", tmp_path / "site-packages" / "apml_plugin")
    assert extension.rebuild_command() == "./install.sh in a clone of the repository"
    monkeypatch.setenv("APML_BUILD", "off")
    assert extension.rebuild_command() == "APML_BUILD=auto ./install.sh in a clone of the repository"


MODULE = """
#include <Python.h>
extern "C" PyObject* PyInit__C(void) {
  static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_C", nullptr, -1, nullptr};
  return PyModule_Create(&module);
}
"""
THREADS = """
#include <ATen/Parallel.h>
#include <atomic>
extern "C" int threads_used() {
  std::atomic<int> used{0};
  at::parallel_for(0, 64, 1, [&](int64_t, int64_t) { ++used; });
  return used;
}
"""
LOAD = """
import ctypes, torch
library = ctypes.CDLL(__import__("apml_plugin._C", fromlist=["_C"]).__file__)
for threads in (1, 3):
    torch.set_num_threads(threads)
    print(library.threads_used(), end=" ")
"""


@pytest.mark.slow
def test_a_real_build(tmp_path: Path) -> None:
    """Compiles, loads, obeys torch.set_num_threads, compiles nothing twice; a broken source is no ops, or an error."""
    if not any(map(shutil.which, [os.environ.get("CXX", "c++"), "g++", "clang++"])):
        pytest.skip("needs a C++ compiler")
    for name in ("setup.py", "pyproject.toml", "README.md", "cuda_ext/decide.py", "cuda_ext/build_ops.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    package, sources = tmp_path / "apml_plugin", tmp_path / "cuda_ext"
    for folder in (package, sources / "cpu"):
        folder.mkdir()
    (package / "__init__.py").touch()
    (package / "VERSION").write_text("0.0.1")
    (sources / "module.cpp").write_text(MODULE)
    (sources / "cpu" / "threads.cpp").write_text(THREADS)

    def build(wish: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "setup.py", "build_ext", "--inplace"]
        return subprocess.run(
            command, cwd=tmp_path, env=os.environ | {"APML_BUILD": wish}, capture_output=True, text=True, check=False
        )

    first = build("cpu")
    assert first.returncode == 0, first.stdout + first.stderr
    record = extension.read_record(package)
    assert record is not None
    assert record.ops == ("cpu",)
    assert extension.unusable(record) is None
    loaded = subprocess.run([sys.executable, "-c", LOAD], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert loaded.stdout == "1 3 ", loaded.stderr
    if shutil.which("ninja"):
        assert "no work to do" in build("cpu").stdout

    (sources / "module.cpp").write_text("int broken = absent;")
    assert build("cpu").returncode != 0
    failed = build("auto")
    assert failed.returncode == 0, failed.stderr
    assert "the compile failed" in failed.stderr
    assert "absent" in failed.stderr
    assert "absent" in (tmp_path / "build" / "ops.log").read_text()
    assert list(package.glob("_C*")) == []
    assert json.loads((package / "_build.json").read_text())["ops"] == []
