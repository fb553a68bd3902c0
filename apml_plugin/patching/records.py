"""What a patch is made of and what it did: plain frozen records."""

from __future__ import annotations

import difflib
import tokenize
from dataclasses import dataclass
from pathlib import Path

MARKER = "# apml-plugin"
"""Ends every line a patch inserts. Undoing a patch by hand is deleting these lines."""
SOURCE = "apml_plugin.hooks"
"""The one module that inserted lines import from."""


@dataclass(frozen=True)
class Line:
    """One line that a patch inserts, and the import it needs.

    file: path inside the host, with forward slashes. scope: qualified name of a function or class (``Outer.method``),
    "" for the module's top level. after: what is bound there by an assignment or an import, a name or a dotted one
    (``loss_fn = ...``, ``self.loss = ...``, ``import a.b``), at any depth of blocks but not in a function within; of
    several such statements the last, unless `which` gives another's index. The line goes behind that statement,
    indented as it is; without `after` it is a decorator of the scope. text: the line. name: what it imports from
    `SOURCE`.
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
        where = f"behind '{self.after}' in '{self.scope or 'the top level'}'" if self.after else f"above '{self.scope}'"
        return f"'{self.text}' {where}"


def decorator(file: str, scope: str, name: str, arguments: str = "") -> Line:
    """A decorator above a definition. arguments: what follows the name, parentheses included, if anything."""
    return Line(file, scope, "", f"@{name}{arguments}", name)


@dataclass(frozen=True)
class Recipe:
    """A named set of lines, several per file if need be, that only make sense together."""

    name: str
    edits: tuple[Line, ...]


@dataclass(frozen=True)
class Change:
    """One file before and after. `verb` says what happens to it, `reason` why when that is not obvious."""

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
        """The changes as a unified diff for reading (line ends are shown as plain ones)."""
        return "".join(_unified(change) for change in self.changes if change.differs)


def _unified(change: Change) -> str:
    encoding = _encoding(change.before)
    before, after = (_shown(data, encoding) for data in (change.before, change.after))
    lines = difflib.unified_diff(before, after, f"a/{change.file}", f"b/{change.file}")
    return "".join(lines)


def _shown(data: bytes, encoding: str) -> list[str]:
    text = data.decode(encoding, errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    return [line + "\n" for line in text.removesuffix("\n").split("\n")]


def _encoding(data: bytes) -> str:
    lines = iter(data.splitlines(keepends=True))
    return tokenize.detect_encoding(lambda: next(lines, b""))[0]
