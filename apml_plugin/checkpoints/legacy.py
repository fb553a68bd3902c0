"""Files from before PyTorch 1.6 that hold a host's module, made readable by the weights-only reader.

Where such a file names a module's class it puts a tuple ``("module", class, source file, source)`` and asks for the
object of that description, to compare sources. The weights-only reader knows descriptions of storages only. Here the
file is offered with a call of :data:`placeholders.CONTAINER` in that place, which gives back the class, itself a
shell. Only instructions are looked at; none is followed.
"""

from __future__ import annotations

import io
import pickletools
from typing import IO, Any

from .placeholders import CONTAINER

_CALL = f"c{CONTAINER.__module__}\n{CONTAINER.__qualname__}\n".encode()
_PICKLES_BEFORE = 3  # magic number, protocol, system


def without_modules(file: IO[bytes]) -> IO[bytes]:
    """``file`` (at its start) as a file in which descriptions of modules are calls of CONTAINER."""
    start = file.tell()
    for _ in range(_PICKLES_BEFORE):
        for _ in pickletools.genops(file):
            pass
    first = file.tell()
    edits = _edits(file)
    last = file.tell()
    file.seek(start)
    head = bytearray(file.read(last - start))
    for at, remove, insert in sorted(edits, reverse=True):
        at += first - start
        head[at : at + remove] = insert
    file.seek(start)
    return io.BufferedReader(_Joined(bytes(head), file, last))


def _edits(file: IO[bytes]) -> list[tuple[int, int, bytes]]:
    """(position in the pickle, bytes to remove, bytes to insert) for each description of a module."""
    marks: list[int] = []  # where in `seen` the open tuples begin
    seen: list[tuple[str, Any, int]] = []
    memo: dict[Any, Any] = {}  # the texts it keeps by number
    opened, edits = -1, []
    begin = file.tell()
    for opcode, argument, position in pickletools.genops(file):
        name, at = opcode.name, (position or 0) - begin
        if name in ("BINPUT", "LONG_BINPUT"):
            if seen and seen[-1][0] == "BINUNICODE":
                memo[argument] = seen[-1][1]
            continue
        if name in ("BINGET", "LONG_BINGET") and argument in memo:
            name, argument = "BINUNICODE", memo[argument]
        if name == "MARK":
            marks.append(len(seen))
        elif name == "TUPLE":
            opened = marks.pop() if marks else -1
        elif name in ("LIST", "DICT", "APPENDS", "SETITEMS") and marks:
            marks.pop()
        elif name == "BINPERSID" and _describes_module(seen, opened):
            edits += [(seen[opened][2], 0, _CALL), (at, 1, b"R")]
        seen.append((name, argument, at))
    return edits


def _describes_module(seen: list[tuple[str, Any, int]], opened: int) -> bool:
    """Whether the last instruction closed the tuple opened at ``opened``, and "module" is the first in it."""
    if opened < 0 or len(seen) < opened + 2 or seen[-1][0] != "TUPLE":
        return False
    return seen[opened + 1][:2] == ("BINUNICODE", "module")


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
