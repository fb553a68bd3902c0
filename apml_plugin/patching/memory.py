"""A recipe put into a module while it is imported: the text that a patch would write, compiled."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from types import CodeType

from . import source
from .records import Edit, Line


def text(data: bytes, edits: Sequence[Edit | Line]) -> bytes:
    """A file's bytes with the lines of the edits that are not there yet, as `apml patch` writes them."""
    there = source.present(data, edits)
    missing = [edit for edit in edits if edit not in there]
    return source.insert(data, *missing) if missing else data


def compiled(data: bytes, edits: Sequence[Edit | Line], file: str) -> CodeType:
    """The code of `text`, in which every statement keeps the line that it has in the file on disk."""
    after = text(data, edits)
    tree = ast.parse(after, filename=file)
    if after != data:
        inserted = _added(data, after)
        for node in ast.walk(tree):
            for name in ("lineno", "end_lineno"):
                line = getattr(node, name, None)
                if line is not None:
                    # An inserted line counts as the one above it.
                    setattr(node, name, max(1, line - sum(number <= line for number in inserted)))
    return compile(tree, file, "exec", dont_inherit=True)


def _added(data: bytes, after: bytes) -> list[int]:
    """Numbers of the lines of `after` that `data` does not have; only ever insertions."""
    old, new = source.split(data)[1], source.split(after)[1]
    added, at = [], 0
    for number, line in enumerate(new, start=1):
        if at < len(old) and line.rstrip(b"\r\n") == old[at].rstrip(b"\r\n"):
            at += 1
        else:
            added.append(number)
    return added
