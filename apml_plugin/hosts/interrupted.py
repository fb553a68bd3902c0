"""Whether a clone is between two states: then what a patch inserted into it does nothing but refuse a loss.

A few looks at the disk when a host is imported. No torch here: patched files load this before anything else.
"""

from __future__ import annotations

import functools
import os
import sys
from typing import Any

from ..announce import tell
from ..chosen import VARIABLE
from ..patching.journal import find
from . import guard


def interrupted(inserted_at: Any) -> bool:
    """True, and a line on stderr, if the clone was left in the middle of an `apml patch`.

    inserted_at: the decorated function or class, or the path of the file with the inserted line.
    """
    file = inserted_at if isinstance(inserted_at, str) else _file_of(inserted_at)
    return bool(file) and _interrupted(file)


def interrupted_caller() -> bool:
    """The same for the host's code that is running."""
    return _interrupted(guard.caller().f_code.co_filename)


@functools.cache
def _interrupted(file: str) -> bool:
    root = find(os.path.dirname(os.path.abspath(file))) or find(os.path.dirname(os.path.realpath(file)))
    if root is None:
        return False
    text = f"an apml patch of {root} was interrupted. Run `apml patch --check {root}` to clean up"
    if os.environ.get(VARIABLE, "").strip():
        guard.stop(text)
    tell(f"interrupted {root}", f"{text}; until then a run that asks for a loss is refused")
    return True


def _file_of(obj: Any) -> str:
    code = getattr(obj, "__code__", None)
    if code is not None:
        return str(code.co_filename)
    return getattr(sys.modules.get(getattr(obj, "__module__", None) or ""), "__file__", None) or ""
