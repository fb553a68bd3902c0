"""Stand-in for the functions on point clouds of ``pytorch3d``: ``loss.chamfer_distance`` and those of ``ops``."""

from apml_plugin.standins.absent import absent

from . import loss, ops

__all__ = ["loss", "ops"]
__version__ = "0.0.0+apml.standin"

__getattr__ = absent("pytorch3d", "Install the real one: https://github.com/facebookresearch/pytorch3d")
