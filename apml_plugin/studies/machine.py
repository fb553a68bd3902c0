"""The machine in words, without which figures mean nothing."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from apml_plugin import __version__
from apml_plugin.arguments import counted


def machine() -> dict[str, Any]:
    """The facts that a report begins with."""
    cuda = torch.cuda.is_available()
    return {
        "cpu": _cpu_model(),
        "cores": usable_cores(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "cuda": torch.version.cuda if cuda else None,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "apml_plugin": __version__,
    }


def describe(facts: dict[str, Any]) -> list[str]:
    """The facts as lines of text."""
    threads = counted(facts["threads"], "thread")
    busy = "" if facts["load"] is None else f", load {facts['load']:g} at the start"
    gpu = f"{facts['gpu']}, CUDA {facts['cuda']}" if facts["gpu"] else "none"
    return [
        f"CPU:      {facts['cpu']}, {counted(facts['cores'], 'core')}, {threads} used{busy}",
        f"GPU:      {gpu}",
        f"software: apml-plugin {facts['apml_plugin']}, PyTorch {facts['torch']}, Python {facts['python']}, "
        f"{facts['system']}",
    ]


def usable_cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[int]:
    """PyTorch's number of threads inside the block; None leaves it unchanged. Yields the number in effect."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
