"""Python projects on disk: where their root is, and their source files, parsed but never run.

Links that lead out of the project are not followed.
"""

from __future__ import annotations

import ast
import errno
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from . import opening

MOST = 256 * 1024
"""Largest source file in bytes, twice the largest one of the codebases tested. A syntax tree can take a thousand times
the memory of its source."""
DEEPEST = 120
"""Most levels of a syntax tree: walking a level takes several of the 1000 nested calls that Python allows. Handwritten
code has 20 to 60 levels, the longest chains of elif 94."""

ABOVE = 4
"""How many folders above a file are searched for its project's root."""

_MARKS = ("README", "LICENSE", "requirements", "setup.py", "pyproject.toml", "environment.y", ".gitignore")
_SKIPPED = {"__pycache__", "node_modules", "site-packages", "build", "dist", "venv", "env", "experiments", "data"}


def python_files(root: Path, folders: int = 6) -> Iterator[str]:
    """The Python files in the top levels of `root`, without those of environments, builds and data folders."""
    for folder, names, files in os.walk(root):
        here = Path(folder).relative_to(root)
        deep = len(here.parts) >= folders
        names[:] = [] if deep else sorted(n for n in names if n not in _SKIPPED and not n.startswith("."))
        yield from ((here / file).as_posix() for file in sorted(files) if file.endswith(".py"))


def read_source(root: Path, file: str) -> bytes:
    """The bytes of a Python file of the clone at `root`. Raises OSError, also if it is too large or a link out."""
    return opening.read_regular(inside(root, file), MOST)


def inside(root: Path, file: str) -> Path:
    """The real path of `file` in the clone at `root`. Raises OSError if a link leads out of the clone."""
    home, target = os.path.realpath(root), os.path.realpath(os.path.join(root, file))
    if os.path.commonpath([home, target]) == home:
        return Path(target)
    parts = Path(file).parts
    links = (os.path.join(*parts[:n]) for n in range(1, len(parts) + 1))
    link = next((name for name in links if os.path.islink(os.path.join(root, name))), file)
    text = f"is a link out of {root}: {link} points to {os.path.realpath(os.path.join(root, link))}"
    raise OSError(errno.EXDEV, f"{text}; put a copy in its place", os.path.join(root, file))


def parse(data: bytes) -> ast.Module:
    """The syntax tree. Raises SyntaxError if there is none, or if it is too deep to be walked."""
    try:
        tree = ast.parse(data)
    except (RecursionError, MemoryError):
        raise SyntaxError("is nested too deeply to be looked at") from None
    except ValueError as error:  # a NUL byte
        raise SyntaxError(f"is not valid Python ({error})") from None
    level: list[ast.AST] = [tree]
    for _ in range(DEEPEST):
        values = [value for node in level for value in vars(node).values()]
        level = [value for value in values if isinstance(value, ast.AST)]
        level += [item for value in values if type(value) is list for item in value if isinstance(item, ast.AST)]
        if not level:
            return tree
    raise SyntaxError("is nested too deeply to be looked at", ("", getattr(level[0], "lineno", None), None, None))


def why(error: OSError | SyntaxError) -> str:
    """Why a file could not be read or parsed, to follow its name in a message."""
    if isinstance(error, OSError):
        return f" {opening.why(error)}"
    where = f", line {error.lineno}" if error.lineno else ""
    return f"{where} {error.msg}" if error.msg.startswith("is ") else f"{where} is not valid Python ({error.msg})"


def root_of(file: str | os.PathLike[str]) -> str:
    """The root of the project that a file or folder belongs to.

    This is the nearest folder upwards with a ``.git``. Without one, it is the highest of the nearest folders that hold
    a README, a licence or another file of a project's root; else the folder above the script's, if the script imports
    from there; else the file's own folder.
    """
    real = Path(os.path.realpath(file))
    here = above_package(real if real.is_dir() else real.parent)
    for folder in (here, *here.parents):
        if (folder / ".git").exists():
            return str(folder)
    inside = upwards(here)
    marked = [folder for folder in inside if any(name.startswith(_MARKS) for name in _names(folder))]
    if marked:
        return str(marked[-1])
    return str(inside[1] if len(inside) > 1 and _imports_from(here, inside[1]) else here)


def upwards(folder: Path) -> list[Path]:
    """`folder` and the few above it that may belong to the same project, up to the clone's root if there is one.

    Where people keep everything (their home, the folder for temporary files, the root) no project begins.
    """
    everything = (Path.home().resolve(), Path(tempfile.gettempdir()).resolve(), Path(folder.anchor))
    found = [folder]
    while len(found) <= ABOVE and not (found[-1] / ".git").exists() and found[-1].parent not in everything:
        found.append(found[-1].parent)
    return found


def above_package(folder: Path) -> Path:
    """The folder above a package if it holds more of the project than this package; for other folders, `folder`."""
    at = folder
    while "__init__.py" in _names(at) and at != at.parent:
        folder, at = at, at.parent
    more = any(name.endswith(".py") or name.startswith((*_MARKS, ".git")) for name in _names(at))
    return at if more else folder


def holds_python(folder: Path) -> bool:
    return any(name.endswith(".py") for name in _names(folder))


def _imports_from(folder: Path, above: Path) -> bool:
    """Whether a Python file in `folder` puts the parent folder on sys.path, or imports one of its other folders."""
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
