"""Peak memory of one forward and backward, above the inputs.

On a GPU PyTorch's allocator counts it. On the CPU only the kernel does, and its peak of a process never falls. So a
fresh process (``python -m apml_plugin.studies.bench.memory CASE``) runs the case once, and prints by how many bytes its
peak rose, or ``null`` where the system does not report it. Errors go to stderr as one line, with exit code 1.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

import apml_plugin

from .contestants import Contestant, contestant
from .timing import clouds, problem_of, timed

NOT_MEASURED = "not measured"
WARM_UP_POINTS = 64


@dataclass(frozen=True)
class ChildCase:
    """A case for the fresh process, in plain values."""

    name: str
    cloud: str
    batch: int
    points: int
    dtype: str
    threads: int


@dataclass(frozen=True)
class Memory:
    """Bytes above the inputs; None where they cannot be measured. ``problem``: why the run itself failed."""

    peak: int | None
    problem: str | None = None


def on_cuda(one: Contestant, pred: Tensor, gt: Tensor) -> Memory:
    """Peak of PyTorch's allocator in this process, above the memory of the clouds."""
    try:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        timed(one.call, pred, gt, one.gradient)
        return Memory(torch.cuda.max_memory_allocated() - before)
    except Exception as error:  # above all out of memory: the case is left out, with the reason
        problem = problem_of(error)
    torch.cuda.empty_cache()
    return Memory(None, problem)


def on_cpu(case: ChildCase, timeout: float | None = None) -> Memory:
    """Resident peak of a fresh process, above what it held before the call."""
    paths = [str(Path(apml_plugin.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", __name__, json.dumps(asdict(case))]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=timeout)
    except subprocess.TimeoutExpired:
        return Memory(None, f"left out: its memory run took longer than {timeout:.0f} s")
    if done.returncode < 0:
        return Memory(None, f"failed: killed by signal {-done.returncode}, most likely out of memory")
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        error = (done.stderr.strip().splitlines() or ["without a message"])[-1]
        return Memory(None, error if error.startswith("failed: ") else f"failed: memory run: {error}")
    peak = json.loads(lines[-1])
    return Memory(None if peak is None else int(peak))


def measure_here(case: ChildCase) -> int | None:
    """Bytes of resident memory above what this process held before the call, or None."""
    torch.set_num_threads(case.threads)
    one, dtype = contestant(case.name), getattr(torch, case.dtype)
    # A first call loads libraries, thread pools and the autograd engine, which are not part of the case.
    timed(one.call, *clouds(case.cloud, 1, WARM_UP_POINTS, dtype, "cpu"), one.gradient)
    pred, gt = clouds(case.cloud, case.batch, case.points, dtype, "cpu")
    _reset_peak()
    before = peak_resident()
    timed(one.call, pred, gt, one.gradient)
    after = peak_resident()
    return None if before is None or after is None else after - before


def peak_resident() -> int | None:
    """The most memory that this process ever held, in bytes."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _reset_peak() -> None:
    """Returns freed memory to the system, which the case would reuse without being counted, and resets the peak.

    Both work with the C library and the kernel of Linux. Elsewhere the figure is a lower bound.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    with contextlib.suppress(OSError):  # out of memory, the system ends this process and not the one that waits
        Path("/proc/self/oom_score_adj").write_text("1000")
    try:
        print(json.dumps(measure_here(ChildCase(**json.loads(sys.argv[1])))))
    except Exception as error:  # the parent needs one line, not a traceback
        print(problem_of(error), file=sys.stderr)
        sys.exit(1)
