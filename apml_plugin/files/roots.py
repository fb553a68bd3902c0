"""Which folder is the root of the project that a file belongs to."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

ABOVE = 4
"""How many folders above a file are looked at."""

_MARKS = ("README", "LICENSE", "requirements", "setup.py", "pyproject.toml", "environment.y", ".gitignore")


def root_of(file: str | os.PathLike[str]) -> str:
    """The root of the project that a file or folder belongs to.

    The nearest folder with a ``.git``; in a clone without one, the highest of the nearest folders that hold what a
    project's root holds (a README, a licence, ...); else the folder above a script's, if the script imports from there;
    else the file's own folder.
    """
    real = Path(os.path.realpath(file))
    here = above_package(real if real.is_dir() else real.parent)
    for folder in (here, *here.parents):
        if (folder / ".git").exists():
            return str(folder)
    inside = [here]
    for folder in list(here.parents)[:ABOVE]:
        if folder in (Path.home().resolve(), Path(tempfile.gettempdir()).resolve(), Path(folder.anchor)):
            break
        inside.append(folder)
    marked = [folder for folder in inside if any(name.startswith(_MARKS) for name in _names(folder))]
    if marked:
        return str(marked[-1])
    return str(inside[1] if len(inside) > 1 and _imports_from(here, inside[1]) else here)


def above_package(folder: Path) -> Path:
    """The folder above a package, where that is more than a place to keep it: a package is not all of a project."""
    at = folder
    while "__init__.py" in _names(at) and at != at.parent:
        folder, at = at, at.parent
    more = any(name.endswith(".py") or name.startswith((*_MARKS, ".git")) for name in _names(at))
    return at if more else folder


def holds_python(folder: Path) -> bool:
    return any(name.endswith(".py") for name in _names(folder))


def _imports_from(folder: Path, above: Path) -> bool:
    """Whether a Python file of `folder` puts the folder above on the path, or imports a folder that lies beside it."""
    beside = [name for name in _names(above) if name.isidentifier() and holds_python(above / name)]
    names = "|".join(beside).encode() or b"(?!)"
    wanted = re.compile(
        rb"^\s*(?:from|import)\s+(?:%s)\b|sys\.path\.\w+\(.*(?:\.\.|parent|dirname.*dirname)" % names, re.M
    )
    files = [folder / name for name in _names(folder) if name.endswith(".py")]
    return any(f.is_file() and f.stat().st_size < 1_000_000 and wanted.search(f.read_bytes()) for f in files)


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
