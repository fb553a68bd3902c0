"""What setup.py compiled: for which PyTorch and Python, for which devices, and why not for the others.

The record lies beside the package, ``_build.json``. It is read here without loading the ops: a library made for
another PyTorch may crash when it is loaded.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Record:
    ops: tuple[str, ...]
    """The devices with ops: "cpu", or "cpu" and "cuda"."""
    missing: dict[str, str]
    """For each other device, why it has none and what would change that."""
    torch: str | None
    python: str
    architectures: str | None
    """Of the CUDA ops, as in TORCH_CUDA_ARCH_LIST."""


def read(folder: Path = PACKAGE) -> Record | None:
    """The record, or None where the package was not installed by its setup.py."""
    try:
        written = json.loads((folder / "_build.json").read_text())
        return Record(tuple(written.pop("ops")), **written)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def unusable(record: Record | None) -> str | None:
    """Why there are no compiled ops for this PyTorch and this Python, or None."""
    if record is None:
        return "nothing was compiled here yet"
    if not record.ops:
        return record.missing.get("cpu", "none were built")
    import torch

    here = f"PyTorch {torch.__version__} and {sys.implementation.cache_tag}"
    built = f"PyTorch {record.torch} and {record.python}"
    return None if built == here else f"they were built for {built}, and this is {here}"


def rebuild_command() -> str:
    """The one command that compiles the ops anew."""
    # What forbade the ops the last time would forbid them again.
    wish = "APML_BUILD=auto " if os.environ.get("APML_BUILD") == "off" else ""
    if (PACKAGE.parent / "setup.py").exists():
        return f"{wish}pip install --no-build-isolation -e {PACKAGE.parent}"
    return f"{wish}./install.sh in a clone of the repository"
