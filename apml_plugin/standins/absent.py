"""What a stand-in says of a name that it does not have, and under which other names it is imported."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import NoReturn


def absent(module: str, remedy: str = "Compile the real one: see the host's README") -> Callable[[str], NoReturn]:
    """A module's ``__getattr__``: AttributeError naming the module, the name asked for, and what to install."""

    def __getattr__(name: str) -> NoReturn:
        if name.startswith("__"):  # asked for by Python itself, which expects no advice
            raise AttributeError(name)
        raise AttributeError(f"{module}.{name} is not in the stand-in for {module.partition('.')[0]}. {remedy}")

    return __getattr__


def also(module: ModuleType, package: str, *names: str) -> None:
    """Has ``module`` imported under further names of ``package`` too, among which the real one spreads it."""
    for name in names:
        sys.modules[f"{package}.{name}"] = module
        for parent, word in ((package, name), (f"{package}.{name}".rpartition(".")[0], name.rpartition(".")[2])):
            if "." not in word and word not in vars(sys.modules[parent]):
                setattr(sys.modules[parent], word, module)
