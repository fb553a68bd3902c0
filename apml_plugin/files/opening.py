"""Opening what is really a file."""

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
    """The file, open for reading. Raises OSError, without waiting, for what is no file: its `strerror` says what."""
    _check(os.stat(path), path)  # before opening: that alone makes some devices act
    stream = open(path, "rb", opener=_at_once)  # noqa: SIM115 (the caller closes it)
    try:
        _check(os.fstat(stream.fileno()), path)
    except OSError:
        stream.close()
        raise
    return stream


def read_regular(path: str | os.PathLike[str], most: int) -> bytes:
    """The bytes of a file of at most `most` bytes. Raises OSError as `open_regular`, and for a larger file."""
    with open_regular(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        data = stream.read(most + 1) if size <= most else b""
        if max(size, len(data)) > most:  # some files say they hold nothing and hold much
            text = f"has {size_of(max(size, len(data)))}, more than the {size_of(most)} that are read of such a file"
            raise OSError(errno.EFBIG, text, os.fspath(path))
        return data


def why(error: OSError) -> str:
    """What follows a file's name in a message."""
    told = error.strerror or str(error)
    return told if told.startswith(("is ", "has ")) else f"cannot be read ({told})"


def size_of(count: float) -> str:
    """A number of bytes for people."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} GiB"


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _check(found: os.stat_result, path: str | os.PathLike[str]) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise OSError(errno.EINVAL, f"is {kind}, not a file", os.fspath(path))
