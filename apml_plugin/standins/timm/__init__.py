"""Stand-in for the names of ``timm`` that completion hosts use, in all the places where old and new timm keep them."""

from apml_plugin.standins.absent import absent, also

from . import layers, scheduler

__all__ = ["layers", "scheduler"]
__version__ = "0.0.0+apml.standin"

__getattr__ = absent("timm", layers.REMEDY)
also(layers, __name__, "layers.drop", "layers.mlp", "layers.attention", "layers.weight_init")
also(layers, __name__, "models", "models.layers", "models.vision_transformer")
