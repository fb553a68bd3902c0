"""Modules imported as `apml run` imports them, in this process: with the lines of their host's recipe in them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

from apml_plugin.launch import recipes


@contextmanager
def imported_with_lines(root: Path) -> Iterator[None]:
    """Within the block, modules below `root` get their lines."""

    class Finder:
        @staticmethod
        def find_spec(
            name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
        ) -> ModuleSpec | None:
            spec = PathFinder.find_spec(name, path, target)
            if spec is not None and spec.origin and spec.origin.startswith(str(root)):
                recipes.into(spec)
            return spec

    recipes.of.cache_clear()
    sys.meta_path.insert(0, Finder)
    try:
        yield
    finally:
        sys.meta_path.remove(Finder)
