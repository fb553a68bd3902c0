"""A recipe applied to a module while it is imported: the text that a patch would write, compiled."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from types import CodeType

from . import source
from .records import Line


def text(data: bytes, edits: Sequence[Line]) -> bytes:
    """The bytes of a file with the lines of the edits, as `apml patch` writes them."""
    file = edits[0].file
    return data if source.present(data, file, edits) == set(edits) else source.put(data, file, edits)


def compiled(data: bytes, edits: Sequence[Line], file: str) -> CodeType:
    """The code of `text`, in which every statement keeps the line number that it has on disk."""
    after = text(data, edits)
    tree = ast.parse(after, filename=file)
    if after != data:
        ours = source.marked(data)
        on_disk = [number for number in range(1, len(source.split(data)[1]) + 1) if number not in ours]
        inserted = source.marked(after)
        for node in ast.walk(tree):
            for name in ("lineno", "end_lineno"):
                line = getattr(node, name, None)
                if line is not None:
                    # An inserted line counts as the one above it.
                    above = line - sum(number <= line for number in inserted)
                    setattr(node, name, on_disk[max(0, above - 1)])
    return compile(tree, file, "exec", dont_inherit=True)
