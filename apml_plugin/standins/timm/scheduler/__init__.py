"""Stand-in for ``timm.scheduler``: the cosine schedule with warm restarts."""

from __future__ import annotations

from apml_plugin.standins.absent import absent

from .cosine_lr import CosineLRScheduler

__all__ = ["CosineLRScheduler"]


__getattr__ = absent(
    "timm.scheduler",
    "Install the real one: pip install timm torchvision",
)
