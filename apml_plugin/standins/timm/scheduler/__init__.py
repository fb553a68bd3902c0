"""Stand-in for ``timm.scheduler``: the cosine schedule with warm restarts."""

from __future__ import annotations

from typing import Any

from .cosine_lr import CosineLRScheduler

__all__ = ["CosineLRScheduler"]


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    raise AttributeError(
        f"timm.scheduler.{name} is not in the stand-in for timm (it has CosineLRScheduler). "
        "Install the real one: pip install timm torchvision"
    )
