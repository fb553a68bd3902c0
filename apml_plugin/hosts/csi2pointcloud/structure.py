"""Telling a CSI2PointCloud codebase by what its training script does, without importing any of it.

Such a script loads a YAML in a function, makes datasets from it, builds a loss with weights for Chamfer and for a
regulariser from a class of the project, and hands that loss to a function that steps through the batches. The
names of variables, functions, files and folders are read off, never assumed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ...errors import HostError
from .reading import WEIGHTS, read_script
from .records import CsiHost, Script

_SKIPPED = {"__pycache__", "site-packages", "build", "dist", "venv", "env", "data", "models"}
_DEPTH = 2


def recognise(path: str | os.PathLike[str]) -> CsiHost:
    """Recognise the CSI2PointCloud codebase at `path`. Raises HostError saying what was looked for, and where."""
    root = Path(path).expanduser()
    if not root.is_dir():
        raise HostError(f"{root} is not a folder; give the root of the clone (the folder above its scripts)")
    root = root.resolve()
    files = list(python_files(root))
    found, reasons = [], []
    for file in files:
        script = read_script(root, file)
        if isinstance(script, Script):
            found.append(script)
        elif script:
            reasons.append(f"{file} {script}")
    if not found:
        why = f". {'; '.join(reasons)}" if reasons else ""
        raise HostError(
            f"{root} is not a CSI2PointCloud codebase this plugin knows. Looked through {len(files)} Python files for "
            "a training script: a function that loads a YAML, builds a loss from a class of the project with "
            f"{' and '.join(WEIGHTS)}, and passes it to a function of the script that calls .backward(){why}"
        )
    return CsiHost(root, tuple(found))


def python_files(root: Path) -> Iterator[str]:
    """Python files at most two folders down, paths with forward slashes."""
    for folder, names, files in os.walk(root):
        here = Path(folder).relative_to(root)
        deep = len(here.parts) >= _DEPTH
        names[:] = [] if deep else sorted(n for n in names if n not in _SKIPPED and not n.startswith("."))
        yield from ((here / file).as_posix() for file in sorted(files) if file.endswith(".py"))
