"""Stand-in for the names of ``timm`` that completion hosts use, in all the places where old and new timm keep them.

DropPath, trunc_normal_, Mlp and Attention are in ``timm.layers``, ``timm.models.layers`` and
``timm.models.vision_transformer``; CosineLRScheduler is in ``timm.scheduler``.
"""

from apml_plugin.standins.absent import absent, also

from . import layers, scheduler

__all__ = ["layers", "models", "scheduler"]
__version__ = "0.0.0+apml.standin"

models = layers
also(f"{__name__}.layers", "layers", "vision_transformer", "drop", "mlp", "weight_init", "attention")
also(f"{__name__}.layers", "", "layers", "vision_transformer", at=f"{__name__}.models")

__getattr__ = absent("timm", layers.REMEDY)
