"""Python files of a clone, to be looked at: never run, never followed out of it."""

from __future__ import annotations

import ast
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from . import opening

MOST = 256 * 1024
"""Bytes. The largest file of the codebases we know has half of it; a syntax tree takes up to a thousand times as much
memory as its source."""
DEEPEST = 120
"""Levels of a syntax tree, each of which takes several of Python's thousand calls to walk. Code that people wrote has
20 to 60, the longest chains of elif 94."""

_SKIPPED = {"__pycache__", "node_modules", "site-packages", "build", "dist", "venv", "env", "experiments", "data"}


def python_files(root: Path, folders: int = 6) -> Iterator[str]:
    """The Python files in so many levels of `root`, a clone, but for those of environments, builds and data in it."""
    for folder, names, files in os.walk(root):
        here = Path(folder).relative_to(root)
        deep = len(here.parts) >= folders
        names[:] = [] if deep else sorted(n for n in names if n not in _SKIPPED and not n.startswith("."))
        yield from ((here / file).as_posix() for file in sorted(files) if file.endswith(".py"))


def read_source(root: Path, file: str) -> bytes:
    """The bytes of a Python file of the clone at `root`. Raises OSError also for a large one and a link out of it."""
    return opening.read_regular(inside(root, file), MOST)


def inside(root: Path, file: str) -> Path:
    """Where `file` of the clone at `root` really is. Raises OSError if a link leads out of the clone."""
    home, target = os.path.realpath(root), os.path.realpath(os.path.join(root, file))
    if os.path.commonpath([home, target]) == home:
        return Path(target)
    parts = Path(file).parts
    links = (os.path.join(*parts[:n]) for n in range(1, len(parts) + 1))
    link = next((name for name in links if os.path.islink(os.path.join(root, name))), file)
    text = f"is a link out of {root}: {link} points to {os.path.realpath(os.path.join(root, link))}"
    raise OSError(errno.EXDEV, f"{text}; put a copy in its place", os.path.join(root, file))


def parse(data: bytes) -> ast.Module:
    """The syntax tree. Raises SyntaxError for all that has none, or one too deep to be walked."""
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
    """What follows the file's name in a message: why it was not looked at."""
    if isinstance(error, OSError):
        return f" {opening.why(error)}"
    where = f", line {error.lineno}" if error.lineno else ""
    return f"{where} {error.msg}" if error.msg.startswith("is ") else f"{where} is not valid Python ({error.msg})"
