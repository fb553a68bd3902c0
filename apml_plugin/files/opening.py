"""Opening regular files only, and words for messages about files."""

from __future__ import annotations

import errno
import os
import stat
from typing import BinaryIO

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """The file, open for reading. Raises OSError if it is not a regular file, and never waits for a pipe or device."""
    _check(os.stat(path), path)  # before opening, which alone has an effect on some devices
    stream = open(path, "rb", opener=_without_waiting)  # noqa: SIM115 (the caller closes it)
    try:
        _check(os.fstat(stream.fileno()), path)
    except OSError:
        stream.close()
        raise
    return stream


def read_regular(path: str | os.PathLike[str], most: int) -> bytes:
    """The bytes of a file of at most `most` bytes. Raises OSError as `open_regular` does, and for a larger file."""
    with open_regular(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        data = stream.read(most + 1) if size <= most else b""
        if max(size, len(data)) > most:  # some files, such as those in /proc, report a size of 0
            text = f"has {size_of(max(size, len(data)))}, more than the limit of {size_of(most)} for such files"
            raise OSError(errno.EFBIG, text, os.fspath(path))
        return data


def why(error: OSError) -> str:
    """Why a file cannot be read, to follow its name in a message."""
    reason = error.strerror or str(error)
    return reason if reason.startswith(("is ", "has ")) else f"cannot be read ({reason})"


def size_of(count: float) -> str:
    """A number of bytes with a unit, such as 1.5 KiB."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} GiB"


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _check(status: os.stat_result, path: str | os.PathLike[str]) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise OSError(errno.EINVAL, f"is {kind}, not a file", os.fspath(path))


def printable(text: str) -> str:
    """``text`` with control characters escaped: a name in a file can hold codes that clear or recolour a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
