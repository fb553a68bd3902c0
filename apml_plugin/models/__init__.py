"""Small completion networks, ``forward(partial (B, N, 3)) -> (coarse, fine)``, for demos, tests and configs."""

from apml_plugin.models.foldingnet import FoldingNet
from apml_plugin.models.pcn import PCN
from apml_plugin.models.pointgmm import PointGMM

__all__ = ["PCN", "FoldingNet", "PointGMM"]
