"""One nn.Module per named loss, a file per family; each holds plain numbers and calls ``functional``."""

from apml_plugin.losses.apml import APML, AdaptiveProbabilisticMatchingLoss, APMLSparse
from apml_plugin.losses.base import PointLoss
from apml_plugin.losses.chamfer import ChamferL1, ChamferL2, OneSidedChamfer
from apml_plugin.losses.combine import PerStage, Schedule, WeightedSum
from apml_plugin.losses.contrastive import InfoCD
from apml_plugin.losses.density import DCD
from apml_plugin.losses.dpcc import (
    DPCC,
    DPCCDensity,
    DPCCDistortion,
    DPCCLatent,
    DPCCNormal,
    DPCCOutputs,
    DPCCPointsNumber,
    Rate,
    density_stats,
)
from apml_plugin.losses.emd import EMD, ApproximateEMD
from apml_plugin.losses.geom import (
    Energy,
    Gaussian,
    HausdorffDivergence,
    ImagesSinkhorn,
    Laplacian,
    Sinkhorn,
    VolumesSinkhorn,
)
from apml_plugin.losses.hausdorff import Hausdorff
from apml_plugin.losses.hyperbolic import HyperCD
from apml_plugin.losses.mixture import GMM, HGMM, EigenPenalty, LatentKL, PoseLoss

__all__ = [
    "APML",
    "DCD",
    "DPCC",
    "EMD",
    "GMM",
    "HGMM",
    "APMLSparse",
    "AdaptiveProbabilisticMatchingLoss",
    "ApproximateEMD",
    "ChamferL1",
    "ChamferL2",
    "DPCCDensity",
    "DPCCDistortion",
    "DPCCLatent",
    "DPCCNormal",
    "DPCCOutputs",
    "DPCCPointsNumber",
    "EigenPenalty",
    "Energy",
    "Gaussian",
    "Hausdorff",
    "HausdorffDivergence",
    "HyperCD",
    "ImagesSinkhorn",
    "InfoCD",
    "Laplacian",
    "LatentKL",
    "OneSidedChamfer",
    "PerStage",
    "PointLoss",
    "PoseLoss",
    "Rate",
    "Schedule",
    "Sinkhorn",
    "VolumesSinkhorn",
    "WeightedSum",
    "density_stats",
]
