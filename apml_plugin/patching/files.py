"""Writing several files as one: all of them or none, also if the process is killed on the way (:mod:`.journal`)."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

from ..errors import PatchError
from ..files.sources import inside, python_files, read_source, why
from .journal import Journal, recover, settle, stage, staged, sync_folder
from .records import Plan


def read(root: Path, file: str) -> bytes:
    """A host file's bytes. Raises PatchError naming the file when it cannot be read."""
    try:
        return read_source(root, file)
    except OSError as error:
        raise PatchError(f"{root / file}{why(error)}. Nothing was changed") from None


def refuse_links(root: Path) -> None:
    """Raises PatchError for a Python file of the clone that is a link out of it: what trains may be there."""
    for file in python_files(root):
        try:
            inside(root, file)
        except OSError as error:
            raise PatchError(f"{root / file}{why(error)}. Nothing was changed") from None


def write(plan: Plan) -> None:
    """Write a plan's changes; file modes stay. On any failure every file is put back, then PatchError is raised.

    A file that is no longer what the plan was made from is refused before anything is written. Killed at any moment,
    it leaves a clone that behaves as unpatched or as patched; the next command that looks at the clone cleans up.
    """
    recover(plan.root)
    changes = [change for change in plan.changes if change.differs]
    for change in changes:
        if read(plan.root, change.file) != change.before:
            raise PatchError(f"{change.file} changed while the patch was being made; run it again. Nothing was changed")
    if not changes:
        return
    targets = [inside(plan.root, change.file) for change in changes]
    for target in targets:
        # Its folder alone decides whether a file can be replaced, and root may write any: its owner's word counts.
        if not target.stat().st_mode & stat.S_IWUSR:
            raise PatchError(f"{target} is read-only: chmod u+w {shlex.quote(str(target))} first. Nothing was changed")
        if not os.access(target, os.W_OK):
            raise PatchError(f"{target} belongs to somebody else: ask them, or patch a copy. Nothing was changed")
    try:
        journal = Journal(plan.root, changes)
    except OSError as error:
        raise _failed(plan, error) from error
    try:
        for target, change in zip(targets, changes, strict=True):
            stage(target, change.after)
        for target in targets:
            os.replace(staged(target), target)
            sync_folder(target.parent)
        journal.lift()
    except BaseException as error:
        try:
            both = zip(targets, changes, strict=True)
            settle(plan.root, [(t, None if t.read_bytes() == c.before else c.before) for t, c in both])
        except OSError as second:
            raise PatchError(
                f"could not write {second.filename or plan.root}: {second.strerror}, nor put back what was written "
                "before. Until the next apml patch or check, which tries again, the clone counts as unpatched"
            ) from second
        finally:
            journal.close()
        if isinstance(error, OSError):
            raise _failed(plan, error) from error
        raise


def _failed(plan: Plan, error: OSError) -> PatchError:
    return PatchError(f"could not write {error.filename or plan.root}: {error.strerror}. Nothing was changed")
