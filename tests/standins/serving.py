"""Stand-ins as a run serves them: with their submodules, and an error for what they do not have."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

from apml_plugin import standins


def served(name: str) -> ModuleType:
    """The module that a host gets for ``name``; this process goes on without it."""
    spec = standins.spec_of(name)
    module = importlib.util.module_from_spec(spec)
    assert spec.loader is not None
    spec.loader.exec_module(module)
    standins.complete(module)
    for submodule in standins.STANDINS[name].submodules:
        assert sys.modules.pop(f"{name}.{submodule}") is module
    return module
