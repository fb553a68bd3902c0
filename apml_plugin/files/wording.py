"""Text from a file, fit for a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """``text`` with control characters written out: a name in a file may hold what clears or recolours a screen."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
