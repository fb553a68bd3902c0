"""Stand-in for ``torchvision.transforms``: only ``Compose``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from apml_plugin.standins.absent import absent


class Compose:
    """Calls one transform after another."""

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        self.transforms = transforms

    def __call__(self, value: Any) -> Any:
        for transform in self.transforms:
            value = transform(value)
        return value


__getattr__ = absent("torchvision.transforms", "Install the real one: pip install torchvision")
