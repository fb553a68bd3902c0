"""What a stand-in says of a name that it does not have."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn


def absent(module: str, remedy: str) -> Callable[[str], NoReturn]:
    """A module's ``__getattr__``: AttributeError naming the module, the name asked for, and what to install."""

    def __getattr__(name: str) -> NoReturn:
        if name.startswith("__"):  # asked for by Python itself, which expects no advice
            raise AttributeError(name)
        raise AttributeError(f"{module}.{name} is not in the stand-in for {module.partition('.')[0]}. {remedy}")

    return __getattr__
