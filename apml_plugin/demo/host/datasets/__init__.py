from . import pcn_dataset
from .build import build_dataset_from_cfg

__all__ = ["build_dataset_from_cfg", "pcn_dataset"]
