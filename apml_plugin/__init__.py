"""Point-set losses that plug into the point-cloud completion codebases people already have.

Names load on first use: ``import apml_plugin`` itself imports nothing heavy.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apml_plugin import _moved
from apml_plugin.checkpoints import own as _own

if TYPE_CHECKING:
    from apml_plugin.functional import apml_loss as apml_loss
    from apml_plugin.functional import chamfer_distance as chamfer_distance
    from apml_plugin.functional import earth_movers_distance as earth_movers_distance
    from apml_plugin.functional import matching_plan as matching_plan
    from apml_plugin.losses import APML as APML
    from apml_plugin.losses import DCD as DCD
    from apml_plugin.losses import DPCC as DPCC
    from apml_plugin.losses import EMD as EMD
    from apml_plugin.losses import GMM as GMM
    from apml_plugin.losses import HGMM as HGMM
    from apml_plugin.losses import AdaptiveProbabilisticMatchingLoss as AdaptiveProbabilisticMatchingLoss
    from apml_plugin.losses import APMLSparse as APMLSparse
    from apml_plugin.losses import ApproximateEMD as ApproximateEMD
    from apml_plugin.losses import ChamferL1 as ChamferL1
    from apml_plugin.losses import ChamferL2 as ChamferL2
    from apml_plugin.losses import DPCCOutputs as DPCCOutputs
    from apml_plugin.losses import Energy as Energy
    from apml_plugin.losses import Gaussian as Gaussian
    from apml_plugin.losses import Hausdorff as Hausdorff
    from apml_plugin.losses import HausdorffDivergence as HausdorffDivergence
    from apml_plugin.losses import HyperCD as HyperCD
    from apml_plugin.losses import ImagesSinkhorn as ImagesSinkhorn
    from apml_plugin.losses import InfoCD as InfoCD
    from apml_plugin.losses import Laplacian as Laplacian
    from apml_plugin.losses import OneSidedChamfer as OneSidedChamfer
    from apml_plugin.losses import Rate as Rate
    from apml_plugin.losses import Sinkhorn as Sinkhorn
    from apml_plugin.losses import VolumesSinkhorn as VolumesSinkhorn
    from apml_plugin.registry import LOSSES as LOSSES
    from apml_plugin.registry import build_loss as build_loss

_WHERE = {
    "APML": "losses",
    "APMLSparse": "losses",
    "AdaptiveProbabilisticMatchingLoss": "losses",
    "ChamferL1": "losses",
    "ChamferL2": "losses",
    "DCD": "losses",
    "DPCC": "losses",
    "DPCCOutputs": "losses",
    "EMD": "losses",
    "ApproximateEMD": "losses",
    "Hausdorff": "losses",
    "HyperCD": "losses",
    "InfoCD": "losses",
    "OneSidedChamfer": "losses",
    "Rate": "losses",
    "Energy": "losses",
    "Gaussian": "losses",
    "GMM": "losses",
    "HGMM": "losses",
    "HausdorffDivergence": "losses",
    "ImagesSinkhorn": "losses",
    "Laplacian": "losses",
    "Sinkhorn": "losses",
    "VolumesSinkhorn": "losses",
    "LOSSES": "registry",
    "build_loss": "registry",
    "apml_loss": "functional",
    "chamfer_distance": "functional",
    "earth_movers_distance": "functional",
    "matching_plan": "functional",
}

__version__ = (Path(__file__).parent / "VERSION").read_text().strip()
__all__ = ["__version__", *_WHERE]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])


_moved.install()
_own.admit()
