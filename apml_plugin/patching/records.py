"""What a patch consists of and what it did, as frozen records."""

from __future__ import annotations

import difflib
import tokenize
from dataclasses import dataclass
from pathlib import Path

MARKER = "# apml-plugin"
"""The end of every inserted line. To undo a patch by hand, delete the lines that end in it."""
SOURCE = "apml_plugin.hooks"
"""The only module that inserted lines import from."""


@dataclass(frozen=True)
class Line:
    """One line that a patch inserts, and the import it needs.

    Attributes:
        file: path inside the host, with forward slashes.
        scope: qualified name of a function or class (``Outer.method``); "" for the module's top level.
        after: the target of an assignment or import in `scope` (``loss_fn``, ``self.loss``, ``a.b``). The line goes
            after that statement, with its indentation. If empty, the line is a decorator of `scope`.
        text: the line without its mark.
        name: what the line imports from `SOURCE`.
        which: index of the statement, if several bind `after`; by default the last one.
    """

    file: str
    scope: str
    after: str
    text: str
    name: str
    which: int = -1

    @property
    def import_line(self) -> str:
        return f"from {SOURCE} import {self.name}  {MARKER}"

    @property
    def line(self) -> str:
        """The line with its mark, without indentation."""
        return f"{self.text}  {MARKER}"

    def __str__(self) -> str:
        where = f"after '{self.after}' in '{self.scope or 'the top level'}'" if self.after else f"above '{self.scope}'"
        return f"'{self.text}' {where}"


def decorator(file: str, scope: str, name: str, arguments: str = "") -> Line:
    """A decorator line above a definition. arguments: what follows its name, parentheses included."""
    return Line(file, scope, "", f"@{name}{arguments}", name)


@dataclass(frozen=True)
class Recipe:
    """A named set of lines that only make sense together; several may be in one file."""

    name: str
    edits: tuple[Line, ...]


@dataclass(frozen=True)
class Change:
    """One file before and after. verb: what happens to it. reason: why, if that is not obvious."""

    file: str
    before: bytes
    after: bytes
    verb: str
    reason: str = ""

    @property
    def differs(self) -> bool:
        return self.before != self.after


@dataclass(frozen=True)
class Plan:
    """Changes to a host, computed and checked but not written."""

    root: Path
    changes: tuple[Change, ...]

    @property
    def differs(self) -> bool:
        return any(change.differs for change in self.changes)

    def diff(self) -> str:
        """The changes as a unified diff for reading; every line end is shown as a plain newline."""
        return "".join(_unified(change) for change in self.changes if change.differs)


def _unified(change: Change) -> str:
    encoding = _encoding(change.before)
    before, after = (_shown(data, encoding) for data in (change.before, change.after))
    return "".join(difflib.unified_diff(before, after, f"a/{change.file}", f"b/{change.file}"))


def _shown(data: bytes, encoding: str) -> list[str]:
    text = data.decode(encoding, errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    return [line + "\n" for line in text.removesuffix("\n").split("\n")]


def _encoding(data: bytes) -> str:
    lines = iter(data.splitlines(keepends=True))
    return tokenize.detect_encoding(lambda: next(lines, b""))[0]
