"""Writing a file whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any


def check_target(path: str | os.PathLike[str], force: bool) -> Path:
    """The path to write to. Raises OSError, whose `strerror` says why, if it cannot be a new file there."""
    target = Path(path).expanduser()
    if target.is_dir():
        raise OSError(errno.EISDIR, "is a folder; give the name of a file to write", str(path))
    if not target.parent.is_dir():
        raise OSError(errno.ENOENT, f"cannot be written: there is no folder {target.parent}", str(path))
    if os.path.lexists(target) and not force:
        raise _exists(target)
    return target


def write_whole(
    target: Path, write: Callable[[IO[bytes]], Any], force: bool, check: Callable[[str], Any] = str
) -> None:
    """Calls `write` with a temporary file beside `target`, which then takes the target's name in one step.

    Args:
        force: replace a file of that name.
        check: called with the temporary file's path before it is renamed; may raise.

    Raises OSError, whose `strerror` says why, and what `write` and `check` raise. Nothing is left behind then.
    """
    temporary = None
    try:
        number, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        with open(number, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        check(temporary)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        if force:
            os.replace(temporary, target)
        else:
            _rename_new(temporary, target)
    finally:
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)


def _rename_new(temporary: str, target: Path) -> None:
    """Renames the file unless another process has created the target meanwhile."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise _exists(target) from None
    except OSError:  # this file system has no hard links
        if os.path.lexists(target):
            raise _exists(target) from None
        os.replace(temporary, target)


def _exists(target: Path) -> OSError:
    return FileExistsError(errno.EEXIST, "exists already; give --force to replace it", str(target))
