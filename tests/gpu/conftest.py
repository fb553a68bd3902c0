"""Where a GPU is: builds the compiled ops in place before any test is collected, and hands them over."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]


def build() -> None:
    """``setup.py build_ext --inplace`` with CUDA demanded. The second of two test processes finds it done."""
    import fcntl

    with open(Path(tempfile.gettempdir(), f"apml_gpu_build_{os.getuid()}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        environment = {**os.environ, "APML_BUILD": "cuda"}
        command = [sys.executable, "setup.py", "build_ext", "--inplace"]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise pytest.UsageError("building the CUDA ops failed:\n" + (done.stdout + done.stderr)[-4000:])


if torch.cuda.is_available():
    build()


class OnGpu:
    """The ops of namespace apml for clouds on the CPU: computed on the GPU, results brought back."""

    def __getattr__(self, name: str) -> Any:
        op = getattr(torch.ops.apml, name)

        def call(*arguments: Any) -> tuple[torch.Tensor, ...]:
            moved = [a.cuda() if isinstance(a, torch.Tensor) else a for a in arguments]
            return tuple(result.cpu() for result in op(*moved))

        return call


@pytest.fixture(scope="session")
def ops() -> OnGpu:
    from apml_plugin.matching import extension

    assert extension.missing("cuda") is None, extension.missing("cuda")
    return OnGpu()
