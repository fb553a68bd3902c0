"""One nn.Module per named loss, a file per family; each holds plain numbers and calls ``functional``."""

from apml_plugin.losses.apml import APML, AdaptiveProbabilisticMatchingLoss, APMLSparse
from apml_plugin.losses.base import PointLoss
from apml_plugin.losses.chamfer import ChamferL1, ChamferL2
from apml_plugin.losses.combine import PerStage, Schedule, WeightedSum

__all__ = [
    "APML",
    "APMLSparse",
    "AdaptiveProbabilisticMatchingLoss",
    "ChamferL1",
    "ChamferL2",
    "PerStage",
    "PointLoss",
    "Schedule",
    "WeightedSum",
]
