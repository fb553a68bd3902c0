"""Stand-in for ``timm.models``: only ``timm.models.layers``."""

from apml_plugin.standins.absent import absent

from . import layers

__all__ = ["layers"]


__getattr__ = absent(
    "timm.models",
    "Install the real one: pip install timm torchvision",
)
