"""The loss of density-preserving point cloud compression (D-PCC), whole and term by term."""

from apml_plugin.losses.dpcc.composite import DPCC
from apml_plugin.losses.dpcc.density import DensityStats, density_stats
from apml_plugin.losses.dpcc.outputs import DPCCOutputs
from apml_plugin.losses.dpcc.rate import Rate, bits
from apml_plugin.losses.dpcc.terms import DPCCDensity, DPCCDistortion, DPCCLatent, DPCCNormal, DPCCPointsNumber

__all__ = [
    "DPCC",
    "DPCCDensity",
    "DPCCDistortion",
    "DPCCLatent",
    "DPCCNormal",
    "DPCCOutputs",
    "DPCCPointsNumber",
    "DensityStats",
    "Rate",
    "bits",
    "density_stats",
]
