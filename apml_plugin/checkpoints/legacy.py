"""Files from before PyTorch 1.6 that hold a host's module, made readable by the weights-only reader.

Where such a file names a module's class it puts a tuple ``("module", class, source file, source)`` and asks for the
object of that description, to compare sources. The weights-only reader knows descriptions of storages only. Here the
file is offered with a call of :data:`placeholders.CONTAINER` in that place, which gives back the class, itself a
shell.
"""

from __future__ import annotations

import io
from typing import IO, Any

from .looking import Look
from .placeholders import CONTAINER

_CALL = f"c{CONTAINER.__module__}\n{CONTAINER.__qualname__}\n".encode()


def without_modules(file: IO[bytes], seen: Look) -> IO[bytes]:
    """``file`` (at its start) as a file in which descriptions of modules are calls of CONTAINER."""
    start = file.tell()
    last = seen.span[1]
    head = bytearray(file.read(last - start))
    edits = [edit for opened, asked in seen.modules for edit in ((opened, 0, _CALL), (asked, 1, b"R"))]
    for at, remove, insert in sorted(edits, reverse=True):
        at -= start
        head[at : at + remove] = insert
    file.seek(start)
    return io.BufferedReader(_Joined(bytes(head), file, last))


class _Joined(io.RawIOBase):
    """``head`` in memory, then ``file`` from ``rest`` on. It has no descriptor, so PyTorch reads it through Python."""

    def __init__(self, head: bytes, file: IO[bytes], rest: int) -> None:
        self._head, self._file, self._rest, self._at = head, file, rest, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        if self._at < len(self._head):
            part = self._head[self._at : self._at + len(view)]
        else:
            self._file.seek(self._rest + self._at - len(self._head))
            part = self._file.read(len(view))
        view[: len(part)] = part
        self._at += len(part)
        return len(part)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            offset += self._file.seek(0, io.SEEK_END) - self._rest + len(self._head)
        elif whence == io.SEEK_CUR:
            offset += self._at
        if offset < 0:
            raise ValueError("negative position")
        self._at = offset
        return offset
