"""Our own losses in checkpoints, as Lightning's save_hyperparameters() leaves them there.

PyTorch's weights-only reader, its default since 2.6, knows a class only if a program has named it. Importing
apml_plugin names the classes below, in whichever order the two are imported, and imports neither PyTorch nor them: that
is put off until a file has a class that PyTorch does not know. The losses hold plain numbers and one another.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from typing import Any

CLASSES = {
    "apml_plugin.losses.apml": ("APML", "APMLSparse", "AdaptiveProbabilisticMatchingLoss"),
    "apml_plugin.losses.chamfer": ("ChamferL1", "ChamferL2", "OneSidedChamfer"),
    "apml_plugin.losses.combine": ("PerStage", "Schedule", "WeightedSum"),
    "apml_plugin.losses.contrastive": ("InfoCD",),
    "apml_plugin.losses.density": ("DCD",),
    "apml_plugin.losses.dpcc.composite": ("DPCC",),
    "apml_plugin.losses.dpcc.rate": ("Rate",),
    "apml_plugin.losses.dpcc.terms": (
        "DPCCDensity",
        "DPCCDistortion",
        "DPCCLatent",
        "DPCCNormal",
        "DPCCPointsNumber",
    ),
    "apml_plugin.losses.emd": ("ApproximateEMD", "EMD"),
    "apml_plugin.losses.geom.grids": ("ImagesSinkhorn", "VolumesSinkhorn"),
    "apml_plugin.losses.geom.modules": ("Energy", "Gaussian", "HausdorffDivergence", "Laplacian", "Sinkhorn"),
    "apml_plugin.losses.hausdorff": ("Hausdorff",),
    "apml_plugin.losses.hyperbolic": ("HyperCD",),
    "apml_plugin.losses.mixture.likelihood": ("GMM", "HGMM"),
    "apml_plugin.losses.mixture.penalties": ("EigenPenalty", "LatentKL", "PoseLoss"),
    "apml_plugin.matching.settings": ("Settings",),
    "torch.nn.modules.container": ("ModuleDict", "ModuleList"),
}
"""Written out, as what a file may make must be; a test holds it against the registry."""


def admit() -> None:
    """Names the classes to PyTorch, now or when it is imported."""
    if "torch.serialization" in sys.modules:
        _tell(sys.modules["torch.serialization"])
    elif not any(isinstance(finder, _WithTorch) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WithTorch())


def _tell(serialization: Any) -> None:
    from torch.version import __version__

    if tuple(int(part) for part in __version__.split(".")[:2]) >= (2, 6):  # before, all is read by default
        entries = [_Later(f"{module}.{name}") for module, names in CLASSES.items() for name in names]
        serialization.add_safe_globals(entries)


class _Later(tuple[str, str]):
    """(class, its name), as PyTorch wants it; the class is imported when it is unpacked."""

    def __new__(cls, name: str) -> _Later:
        return super().__new__(cls, (name, name))

    def __iter__(self) -> Iterator[Any]:
        module, _, name = self[1].rpartition(".")
        try:
            return iter((getattr(importlib.import_module(module), name), self[1]))
        except ImportError:  # no reason for a file without our losses not to load
            return iter((_Absent, self[1]))


class _Absent:
    def __new__(cls, *args: Any) -> Any:
        raise ImportError("the checkpoint holds a loss of apml_plugin, which cannot be imported: import it and see why")


class _WithTorch(MetaPathFinder):
    """Waits for PyTorch, once."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: Any = None) -> Any:
        if fullname != "torch.serialization":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def exec_module(module: Any) -> None:
                run(module)
                _tell(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
