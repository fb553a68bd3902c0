from . import pcn
from .build import build_model_from_cfg

__all__ = ["build_model_from_cfg", "pcn"]
