"""GeomLoss' losses under their names: Sinkhorn, kernel norms, Hausdorff divergence, pictures and volumes."""

from apml_plugin.losses.geom.grids import ImagesSinkhorn, VolumesSinkhorn
from apml_plugin.losses.geom.hausdorff import HausdorffDivergence
from apml_plugin.losses.geom.kernels import Energy, Gaussian, Laplacian
from apml_plugin.losses.geom.sinkhorn import Sinkhorn

__all__ = [
    "Energy",
    "Gaussian",
    "HausdorffDivergence",
    "ImagesSinkhorn",
    "Laplacian",
    "Sinkhorn",
    "VolumesSinkhorn",
]
