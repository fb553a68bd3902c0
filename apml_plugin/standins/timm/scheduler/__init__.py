"""Stand-in for ``timm.scheduler``: the cosine schedule with warm restarts."""

from apml_plugin.standins.absent import absent

from ..layers import REMEDY
from .cosine_lr import CosineLRScheduler

__all__ = ["CosineLRScheduler"]

__getattr__ = absent("timm.scheduler", REMEDY)
