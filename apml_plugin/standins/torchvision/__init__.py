"""Stand-in for the one name of ``torchvision`` that hosts train with: ``transforms.Compose``."""

from apml_plugin.standins.absent import absent

from . import transforms

__all__ = ["transforms"]
__version__ = "0.0.0+apml.standin"

__getattr__ = absent("torchvision", "It has transforms.Compose. Install the real one: pip install torchvision")
