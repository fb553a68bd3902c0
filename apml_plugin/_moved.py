"""Old import paths that keep working, each with a warning that names the new one."""

from __future__ import annotations

import importlib
import sys
import warnings
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MOVED: dict[str, str] = {}
"""Old module name: new module name."""


class _Alias(Loader):
    """Loads a moved module: the import of the old name returns the module of the new name."""

    def __init__(self, new: str) -> None:
        self.new = new

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self.new)
        self.spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec  # the import system has just put the old name's there


class _Finder(MetaPathFinder):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name not in MOVED:
            return None
        warnings.warn(f"{name} has moved to {MOVED[name]}; the old name will go in 1.0", FutureWarning, stacklevel=2)
        return ModuleSpec(name, _Alias(MOVED[name]))


def install() -> None:
    """Makes the old names importable. Called once, by ``import apml_plugin``."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())  # last: a module that is really there is found first
