"""Old import paths that keep working, each with a warning that names the new one."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from importlib.abc import InspectLoader, Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import Any

MOVED: dict[str, str] = {
    "apml_plugin.bench": "apml_plugin.studies.bench",
    "apml_plugin.compare": "apml_plugin.studies.compare",
    "apml_plugin.demo": "apml_plugin.studies.demo",
    "apml_plugin.evaluate": "apml_plugin.studies.evaluate",
    "apml_plugin.hosts.mmengine.completion": "apml_plugin.hosts.mmengine.models",
    "apml_plugin.hosts.mmengine.launching": "apml_plugin.hosts.mmengine.compat",
    "apml_plugin.hosts.mmengine.mixture": "apml_plugin.hosts.mmengine.models",
    "apml_plugin.hosts.mmengine.resuming": "apml_plugin.hosts.mmengine.compat",
    "apml_plugin.hosts.mmengine.watching": "apml_plugin.hosts.mmengine.hooks",
    "apml_plugin.metrics.accumulators": "apml_plugin.metrics.accumulator",
    "apml_plugin.studies.completion": "apml_plugin.shapes.dataset",
    "apml_plugin.studies.shapes": "apml_plugin.shapes.families",
    "apml_plugin.studies.solids": "apml_plugin.shapes.solids",
    "apml_plugin.losses.contrastive": "apml_plugin.losses.chamfer_variants",
    "apml_plugin.losses.density": "apml_plugin.losses.chamfer_variants",
    "apml_plugin.losses.geom.modules": "apml_plugin.losses.geom",
    "apml_plugin.losses.hausdorff": "apml_plugin.losses.chamfer",
    "apml_plugin.losses.hyperbolic": "apml_plugin.losses.chamfer_variants",
    "apml_plugin.losses.mixture.density": "apml_plugin.losses.mixture.likelihood",
    "apml_plugin.losses.nearest": "apml_plugin.losses.chamfer",
    "apml_plugin.models.foldingnet": "apml_plugin.models.completion",
    "apml_plugin.models.pcn": "apml_plugin.models.completion",
    "apml_plugin.models.pointgmm.frames": "apml_plugin.models.pointgmm.decoder",
    "apml_plugin.models.pointgmm.invariant": "apml_plugin.models.pointgmm.registration",
    "apml_plugin.models.pointgmm.pointnet": "apml_plugin.models.pointgmm.network",
    "apml_plugin.models.pointgmm.pointr": "apml_plugin.hosts.pointr.pointgmm",
    "apml_plugin.models.pointgmm.poses": "apml_plugin.models.pointgmm.registration",
    "apml_plugin.models.pointgmm.refining": "apml_plugin.models.pointgmm.sampling",
}
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

    def get_code(self, name: str) -> CodeType | None:
        """For ``python -m`` with the old name."""
        spec = importlib.util.find_spec(self.new)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{self.new}.__main__")
        loader = spec and spec.loader
        return loader.get_code(spec.name) if spec and isinstance(loader, InspectLoader) else None


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
