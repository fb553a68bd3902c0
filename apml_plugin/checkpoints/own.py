"""This package's losses in checkpoints, as Lightning's save_hyperparameters() stores them.

PyTorch's weights-only reader, its default since 2.6, makes only the classes that a program has named. Importing
apml_plugin names those of its losses, before or after PyTorch is imported, and imports neither PyTorch nor them: they
are imported when a file holds a class that PyTorch does not know. The losses hold plain numbers and one another.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

from apml_plugin._moved import MOVED

PARTS = {
    "apml_plugin.losses.combine": ("PerStage", "WeightedSum"),
    "apml_plugin.matching.settings": ("Settings",),
    "torch.nn.modules.container": ("ModuleDict", "ModuleList"),
}
"""Classes besides the declared losses that they hold, or that hold them."""

_DECLARED = re.compile(r"^@declare\([^\n]*\)\nclass (\w+)", re.MULTILINE)


@functools.cache
def classes() -> Mapping[str, tuple[str, ...]]:
    """{module: names} of the classes that a checkpoint may hold, at their old paths too.

    Read from the sources of ``apml_plugin.losses``, where each loss declares itself, without importing them.
    """
    package = Path(__file__).parents[1]
    found = dict(PARTS)
    for path in sorted((package / "losses").rglob("*.py")):
        module = ".".join(path.relative_to(package.parent).with_suffix("").parts)
        if names := _DECLARED.findall(path.read_text(encoding="utf-8")):
            found[module] = (*found.get(module, ()), *names)
    for old, new in MOVED.items():
        if names := [name for module in found if f"{module}.".startswith(f"{new}.") for name in found[module]]:
            found[old] = tuple(names)
    return found


def admit() -> None:
    """Names the classes to PyTorch, now or when PyTorch is imported."""
    if "torch.serialization" in sys.modules:
        _name(sys.modules["torch.serialization"])
    elif not any(isinstance(finder, _WithTorch) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WithTorch())


def _name(serialization: Any) -> None:
    from torch.version import __version__

    # Earlier versions read every class by default.
    if tuple(int(part) for part in __version__.split(".")[:2]) >= (
        2,
        6,
    ):
        entries = [_Later(f"{module}.{name}") for module, names in classes().items() for name in names]
        serialization.add_safe_globals(entries)


class _Later(tuple[str, str]):
    """(class, its name), as PyTorch takes it; the class is imported when the pair is unpacked."""

    def __new__(cls, name: str) -> _Later:
        return super().__new__(cls, (name, name))

    def __iter__(self) -> Iterator[Any]:
        module, _, name = self[1].rpartition(".")
        try:
            return iter((getattr(importlib.import_module(MOVED.get(module, module)), name), self[1]))
        except ImportError:  # a file without our losses must load all the same
            return iter((_Absent, self[1]))


class _Absent:
    def __new__(cls, *args: Any) -> Any:
        raise ImportError("the checkpoint holds a loss of apml_plugin, which cannot be imported: import it and see why")


class _WithTorch(MetaPathFinder):
    """Waits for the import of PyTorch, once."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: Any = None) -> Any:
        if fullname != "torch.serialization":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def exec_module(module: Any) -> None:
                run(module)
                _name(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
