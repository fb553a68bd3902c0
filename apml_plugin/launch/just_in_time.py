"""Extensions that hosts compile when they start: where that fails, ``cpp_extension.load`` gives the stand-in.

Several hosts call ``torch.utils.cpp_extension.load(name="chamfer_3D", ...)`` at import, some without asking whether
the module is there. Standard library only: the hooks ask here too.
"""

from __future__ import annotations

import functools
import importlib
import os
import shutil
from types import ModuleType
from typing import Any

from apml_plugin.launch import environment

_failed: set[str] = set()


def may_work(name: str) -> bool:
    """Whether compiling ``name`` could work: there is an nvcc, and it has not failed in this process."""
    return name not in _failed and _has_nvcc()


def prepare(cpp_extension: ModuleType) -> None:
    """Wraps ``load``: for names with a stand-in, what cannot be compiled is not tried, or comes after the failure."""
    load = cpp_extension.load

    @functools.wraps(load)
    def load_or_stand_in(name: Any, *args: Any, **kwargs: Any) -> Any:
        settings = environment.read(os.environ)
        if settings is None or name not in settings.standins:
            return load(name, *args, **kwargs)
        if not settings.cpu and may_work(name):
            from apml_plugin.announce import warn

            try:
                return load(name, *args, **kwargs)
            except Exception as error:
                first = str(error).strip().partition("\n")[0]
                warn(f"{name}: compiling it failed ({type(error).__name__}: {first})")
        _failed.add(name)
        return importlib.import_module(name)

    cpp_extension.load = load_or_stand_in  # type: ignore[attr-defined]


@functools.cache
def _has_nvcc() -> bool:
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    return shutil.which("nvcc") is not None or os.path.exists(os.path.join(home, "bin", "nvcc"))
