"""The fresh process of ``memory.on_cpu``: runs one case once and prints by how many bytes its peak rose.

Prints ``null`` where the system does not say. Errors go to stderr as one line, exit code 1.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import sys
from pathlib import Path

import torch

from apml_plugin.studies.bench.clouds import clouds
from apml_plugin.studies.bench.contestants import contestant
from apml_plugin.studies.bench.memory import ChildCase
from apml_plugin.studies.bench.timing import problem_of, timed

WARM_UP_POINTS = 64


def main(case: ChildCase) -> int | None:
    """Bytes of resident memory above what was held before the call, or None."""
    torch.set_num_threads(case.threads)
    one = contestant(case.name)
    dtype = getattr(torch, case.dtype)
    # Libraries, thread pools and the autograd engine are loaded by a first call and are no part of the case.
    timed(one.call, *clouds(case.cloud, 1, WARM_UP_POINTS, dtype, "cpu"), one.gradient)
    pred, gt = clouds(case.cloud, case.batch, case.points, dtype, "cpu")
    forget_the_past()
    before = peak_resident()
    timed(one.call, pred, gt, one.gradient)
    after = peak_resident()
    return None if before is None or after is None else after - before


def peak_resident() -> int | None:
    """The most this process ever held in memory, in bytes."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_the_past() -> None:
    """Gives freed memory back, which the case would use again unseen, and lets the peak so far be forgotten.

    Both as far as the system can: C library and kernel of Linux. Elsewhere the figure is a lower bound.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _go_first() -> None:
    """If memory runs out, the system shall end this process and not the one that waits for it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


if __name__ == "__main__":
    _go_first()
    try:
        print(json.dumps(main(ChildCase(**json.loads(sys.argv[1])))))
    except Exception as error:  # the parent wants one line, not a traceback
        print(problem_of(error), file=sys.stderr)
        sys.exit(1)
