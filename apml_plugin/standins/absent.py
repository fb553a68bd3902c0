"""What a stand-in says of a name that it does not have, and under which other names it is imported."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn


def absent(module: str, remedy: str) -> Callable[[str], NoReturn]:
    """A module's ``__getattr__``: AttributeError naming the module, the name asked for, and what to install."""

    def __getattr__(name: str) -> NoReturn:
        if name.startswith("__"):  # asked for by Python itself, which expects no advice
            raise AttributeError(name)
        raise AttributeError(f"{module}.{name} is not in the stand-in for {module.partition('.')[0]}. {remedy}")

    return __getattr__


def also(module: str, *names: str, at: str = "") -> None:
    """Has ``module`` imported under other names too: as submodules of its own, or of ``at``, itself for name ""."""
    this = sys.modules[module]
    for name in names:
        sys.modules[f"{at or module}.{name}".rstrip(".")] = this
        if name and name not in vars(this):
            setattr(this, name, this)
