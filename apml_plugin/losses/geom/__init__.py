"""GeomLoss' losses under their names: Sinkhorn, kernel norms, Hausdorff divergence, pictures and volumes."""

from apml_plugin.losses.geom.grids import ImagesSinkhorn, VolumesSinkhorn
from apml_plugin.losses.geom.modules import Energy, Gaussian, HausdorffDivergence, Laplacian, Sinkhorn

__all__ = [
    "Energy",
    "Gaussian",
    "HausdorffDivergence",
    "ImagesSinkhorn",
    "Laplacian",
    "Sinkhorn",
    "VolumesSinkhorn",
]
