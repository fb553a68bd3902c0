"""The machine in words: figures mean nothing without it."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from apml_plugin import __version__


def machine() -> dict[str, Any]:
    """What a table's first lines say."""
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


def describe(found: dict[str, Any]) -> list[str]:
    """The same as lines of text."""
    count = found["threads"]
    busy = "" if found["load"] is None else f", load {found['load']:g} when asked"
    gpu = f"{found['gpu']}, CUDA {found['cuda']}" if found["gpu"] else "none"
    return [
        f"CPU:      {found['cpu']}, {found['cores']} cores, {count} thread{'s' * (count != 1)} used{busy}",
        f"GPU:      {gpu}",
        f"software: apml-plugin {found['apml_plugin']}, PyTorch {found['torch']}, Python {found['python']}, "
        f"{found['system']}",
    ]


def usable_cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[int]:
    """PyTorch's number of threads inside the block; None leaves it. Gives the number that holds."""
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
