"""Stand-in for the one name of ``torchvision`` that hosts train with: ``transforms.Compose``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from apml_plugin.standins.absent import absent, also


class Compose:
    """Calls one transform after another."""

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        self.transforms = transforms

    def __call__(self, value: Any) -> Any:
        for transform in self.transforms:
            value = transform(value)
        return value


__version__ = "0.0.0+apml.standin"
__getattr__ = absent("torchvision", "It has transforms.Compose. Install the real one: pip install torchvision")
also(sys.modules[__name__], __name__, "transforms")
