"""Stand-in for the few names of ``timm`` that completion hosts use.

DropPath and trunc_normal_ in ``timm.layers`` (and ``timm.models.layers``), CosineLRScheduler in
``timm.scheduler``. Anything else: install timm with the torchvision that fits the PyTorch in use.
"""

from apml_plugin.standins.absent import absent

from . import layers, models, scheduler

__all__ = ["layers", "models", "scheduler"]
__version__ = "0.0.0+apml.standin"


__getattr__ = absent(
    "timm",
    "It has DropPath, trunc_normal_ and CosineLRScheduler. Install the real one: pip install timm torchvision",
)
