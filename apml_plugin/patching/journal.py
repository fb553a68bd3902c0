"""Several files as one step, whatever kills it: a journal in the clone's root, and what the next command makes of it.

While the journal lies there the clone counts as unpatched: what a patch inserted does nothing then
(hosts/interrupted.py). So a patch takes effect in the one step that removes the journal, and a revert in the one
that puts it there, while the files in between are replaced one by one. A journal that nobody works on any more is an
interruption: `recover` goes on to the unpatched side, so nothing changes in effect.

It lies in the root and not in .git: a clone may have no .git, or one that is a file (worktrees, submodules), the
inserted lines find it without git, and `git status` shows it for as long as there is something to repair.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from ..errors import PatchError
from ..files.opening import open_regular, read_regular
from ..files.sources import inside
from .records import MARKER, Change

try:
    import fcntl
except ImportError:  # Windows: nothing keeps two commands apart there
    fcntl = None  # type: ignore[assignment]

NAME = ".apml-patch.journal"
_UNFINISHED = NAME + ".new"
_MOST = 16 << 20


class Journal:
    """The journal of one write. `lift` puts the changes into effect; it must come after all of them."""

    def __init__(self, root: Path, changes: Sequence[Change]) -> None:
        """Raises PatchError if another command is at work, OSError if it cannot be written; then there is none."""
        self.path = root / NAME
        entries = [{"file": c.file, "before": _text(c.before), "after": _text(c.after)} for c in changes]
        # The lock belongs to the open file and ends with this process, however it ends.
        self._stream = open(root / _UNFINISHED, "ab", opener=_new)  # noqa: SIM115 - held until the end
        try:
            _lock(self._stream.fileno(), root)
            self._stream.truncate(0)
            self._stream.write(json.dumps({"changes": entries}).encode())
            self._stream.flush()
            os.fsync(self._stream.fileno())
            os.replace(root / _UNFINISHED, self.path)
            sync_folder(root)
        except BaseException as error:
            if not isinstance(error, PatchError):  # that one means that they are another's
                for path in (root / _UNFINISHED, self.path):
                    path.unlink(missing_ok=True)
            self.close()
            raise

    def lift(self) -> None:
        """The step that counts: from here on the clone is what its files say."""
        settle(self.path.parent, ())
        self.close()

    def close(self) -> None:
        self._stream.close()


def find(folder: str | os.PathLike[str]) -> Path | None:
    """The root of the clone around `folder` in which a journal lies, if there is one."""
    at = os.path.abspath(folder)
    while not os.path.lexists(os.path.join(at, NAME)):
        above = os.path.dirname(at)
        if above == at:
            return None
        at = above
    return Path(at)


def recover(root: Path) -> None:
    """After an interruption: undo a patch, finish a revert, and say so on stderr. Without one, nothing.

    Raises PatchError, with nothing changed, if another command is at work, the journal cannot be read, or a file was
    edited since; also if a file cannot be written, and then the journal stays.
    """
    try:
        _drop_unfinished(root)
        with contextlib.suppress(FileNotFoundError), open_regular(inside(root, NAME)) as stream:
            _lock(stream.fileno(), root)
            if os.fstat(stream.fileno()).st_nlink:  # else its owner was done while we waited at the door
                _recover(root, read_regular(root / NAME, _MOST))
    except OSError as error:
        raise PatchError(
            f"an apml patch of {root} was interrupted and could not be cleaned up: {error.filename or root}: "
            f"{error.strerror}. Until it is, the clone counts as unpatched"
        ) from error


def stage(target: Path, data: bytes) -> Path:
    """`data` in a temporary file beside `target`, with its mode, ready to take its place."""
    temporary = staged(target)
    temporary.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        shutil.copymode(target, temporary)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def staged(target: Path) -> Path:
    """Where `stage` puts it: a name that a later command can find again."""
    return target.with_name(f".{target.name}.apml")


def settle(root: Path, goals: Iterable[tuple[Path, bytes | None]]) -> None:
    """Has files hold what they are to hold (None: what they do), and removes all that a write left beside them."""
    for target, goal in goals:
        if goal is not None:
            os.replace(stage(target, goal), target)
        staged(target).unlink(missing_ok=True)
        sync_folder(target.parent)
    (root / NAME).unlink(missing_ok=True)
    sync_folder(root)


def sync_folder(folder: Path) -> None:
    """Has the names in a folder on the disk, where a file system can do that."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _recover(root: Path, data: bytes) -> None:
    changes = _changes(root, data)
    # A patch only ever inserts: the shorter side is the unpatched one.
    revert = all(len(change.after) < len(change.before) for change in changes)
    todo: list[tuple[Path, bytes | None]] = []
    for change in changes:
        target = inside(root, change.file)  # whoever wrote the journal
        goal, other = (change.after, change.before) if revert else (change.before, change.after)
        try:
            now = read_regular(target, _MOST)
        except FileNotFoundError:
            now = b""
        todo.append((target, goal if now == other else None))
        if now not in (goal, other) and MARKER.encode() in now:
            raise PatchError(
                f"{root / change.file} was edited after an apml patch was interrupted here. Delete its lines marked "
                f"'{MARKER}' by hand, then run this again. Nothing was changed"
            )
    settle(root, todo)
    what = "apml patch --revert of {} had been interrupted; finished now" if revert else (
        "apml patch of {} had been interrupted; undone now"
    )  # fmt: skip
    print(f"[apml] {what.format(root)}: {', '.join(change.file for change in changes)}", file=sys.stderr, flush=True)


def _changes(root: Path, data: bytes) -> list[Change]:
    try:
        entries = json.loads(data)["changes"]
        changes = [Change(e["file"], _bytes(e["before"]), _bytes(e["after"]), "interrupted") for e in entries]
        for change in changes:
            if PurePosixPath(change.file).is_absolute() or ".." in PurePosixPath(change.file).parts:
                raise ValueError(f"{change.file} is not in the clone")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise PatchError(
            f"{root / NAME} says that an apml patch was interrupted here, but cannot be read ({error}). Delete "
            f"all lines marked '{MARKER}' by hand, then that file. Nothing was changed"
        ) from None
    return changes


def _drop_unfinished(root: Path) -> None:
    """A journal that was never put in place: nothing had begun."""
    with contextlib.suppress(FileNotFoundError), open_regular(inside(root, _UNFINISHED)) as stream:
        _lock(stream.fileno(), root)
        (root / _UNFINISHED).unlink()


def _lock(handle: int, root: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise PatchError(f"another apml patch is changing {root} right now; run this again when it is done") from None
    except OSError:  # a file system without locks
        return


def _new(path: str, flags: int) -> int:
    """Opens it where it is: a clone may come with a link of that name."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
