"""Small completion networks, ``forward(partial (B, N, 3)) -> (coarse, fine)``, for demos, tests and configs."""

from apml_plugin.models.completion import PCN, FoldingNet
from apml_plugin.models.pointgmm import PointGMM

__all__ = ["PCN", "FoldingNet", "PointGMM"]
