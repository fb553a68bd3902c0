"""Peak memory of one forward and backward, above the inputs.

On a GPU PyTorch's allocator counts it. On the CPU nothing counts but the kernel, and its peak never comes down
by itself: so a fresh process runs the case once (``child.py``) and says how far its peak rose.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from apml_plugin.studies.bench.contestants import Contestant
from apml_plugin.studies.bench.timing import problem_of, timed

NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class ChildCase:
    """What the fresh process is told: plain values only."""

    name: str
    cloud: str
    batch: int
    points: int
    dtype: str
    threads: int


@dataclass(frozen=True)
class Memory:
    """Bytes above the inputs; None where they cannot be measured. ``problem``: the run itself did not succeed."""

    peak: int | None
    problem: str | None = None


def on_cuda(one: Contestant, pred: Tensor, gt: Tensor) -> Memory:
    """Peak of PyTorch's allocator in this process, above what the clouds take."""
    try:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        timed(one.call, pred, gt, one.gradient)
        return Memory(torch.cuda.max_memory_allocated() - before)
    except Exception as error:  # out of memory above all: the case is left out, with the reason
        problem = problem_of(error)
    torch.cuda.empty_cache()
    return Memory(None, problem)


def on_cpu(case: ChildCase, timeout: float | None = None) -> Memory:
    """Resident peak of a fresh process, above what it held before the one call."""
    package_root = str(Path(__file__).parents[3])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([package_root, *_paths()])}
    command = [sys.executable, "-m", "apml_plugin.studies.bench.child", json.dumps(asdict(case))]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=timeout)
    except subprocess.TimeoutExpired:
        return Memory(None, f"left out: its memory run took longer than {timeout:.0f} s")
    if done.returncode < 0:
        return Memory(None, f"failed: killed by signal {-done.returncode}, most likely out of memory")
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        said = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        return Memory(None, said[0] if said[0].startswith("failed: ") else f"failed: memory run: {said[0]}")
    peak = json.loads(lines[-1])
    return Memory(None if peak is None else int(peak))


def _paths() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
