"""Writing several files as one: all of them or none."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from ..errors import PatchError
from .records import Plan


def read(root: Path, file: str) -> bytes:
    """A host file's bytes. Raises PatchError naming the file when it cannot be read."""
    try:
        return (root / file).read_bytes()
    except OSError as error:
        raise PatchError(f"cannot read {root / file}: {error.strerror}. Nothing was changed") from None


def write(plan: Plan) -> None:
    """Write a plan's changes; file modes stay. On any failure every file is put back, then PatchError is raised.

    A file that is no longer what the plan was made from is refused before anything is written.
    """
    changes = [change for change in plan.changes if change.differs]
    for change in changes:
        if read(plan.root, change.file) != change.before:
            raise PatchError(f"{change.file} changed while the patch was being made; run it again. Nothing was changed")
    staged: list[tuple[Path, Path]] = []
    done: list[tuple[Path, bytes]] = []
    try:
        for change in changes:
            target = Path(os.path.realpath(plan.root / change.file))
            staged.append((_stage(target, change.after), target))
        for (temporary, target), change in zip(staged, changes, strict=True):
            os.replace(temporary, target)
            done.append((target, change.before))
    except OSError as error:
        for target, before in reversed(done):
            os.replace(_stage(target, before), target)
        raise PatchError(
            f"could not write {error.filename or plan.root}: {error.strerror}. Nothing was changed"
        ) from error
    finally:
        for temporary, _ in staged:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def _stage(target: Path, data: bytes) -> Path:
    """`data` in a temporary file beside `target`, with its mode, ready to take its place."""
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".apml", dir=target.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        shutil.copymode(target, temporary)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return temporary
