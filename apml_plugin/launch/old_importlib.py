"""``importlib.find_loader``, which Python 3.12 dropped and which hosts ask whether an extension is installed."""

from __future__ import annotations

import importlib.util
from types import ModuleType
from typing import Any

from apml_plugin.launch.announce import tell


def prepare(module: ModuleType) -> None:
    """Gives ``importlib`` a ``find_loader`` where it has none."""
    if not hasattr(module, "find_loader"):
        module.find_loader = find_loader  # type: ignore[attr-defined]


def find_loader(name: str, path: Any = None) -> Any:
    """The loader of module ``name``, None if there is no such module. ``path`` is not looked at."""
    tell("find_loader", "importlib.find_loader, gone since Python 3.12, is answered by importlib.util.find_spec")
    spec = importlib.util.find_spec(name)
    return None if spec is None else spec.loader
