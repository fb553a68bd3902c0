"""Stand-in for ``timm.models``: only ``timm.models.layers``."""

from typing import Any

from . import layers

__all__ = ["layers"]


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    raise AttributeError(
        f"timm.models.{name} is not in the stand-in for timm. Install the real one: pip install timm torchvision"
    )
