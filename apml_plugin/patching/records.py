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
class Edit:
    """One decorator above one definition, and the import it needs.

    file: path inside the host, with forward slashes. anchor: qualified name of the function or class
    (``PCN`` or ``Outer.method``). decorator: a bare name, imported from the module `source`.
    shared: several recipes need this edit, so undoing one of them may have to leave it. arguments: what follows
    the name, parentheses included, if anything.
    """

    file: str
    anchor: str
    decorator: str
    source: str = SOURCE
    shared: bool = False
    arguments: str = ""

    @property
    def import_line(self) -> str:
        return f"from {self.source} import {self.decorator}  {MARKER}"

    @property
    def decorator_line(self) -> str:
        return f"@{self.decorator}{self.arguments}  {MARKER}"

    @property
    def line(self) -> str:
        """The edit's own line, without indentation."""
        return self.decorator_line

    @property
    def name(self) -> str:
        """The name that the import brings."""
        return self.decorator

    def __str__(self) -> str:
        return f"'@{self.decorator}{self.arguments}' above '{self.anchor}'"


@dataclass(frozen=True)
class Line:
    """One statement behind an assignment or an import, and the import it needs itself.

    scope: qualified name of the function or class, "" for the module's top level. after: what is bound there, a name
    or a dotted one (``loss_fn = ...``, ``self.loss = ...``, ``import a.b``), at any depth of blocks but not in a
    function within; of several such statements the last, unless `which` gives another's index. text: one simple
    statement on one line, indented as that statement is. name: imported from the module `source`. shared: as in
    :class:`Edit`.
    """

    file: str
    scope: str
    after: str
    text: str
    name: str
    source: str = SOURCE
    shared: bool = False
    which: int = -1

    @property
    def import_line(self) -> str:
        return f"from {self.source} import {self.name}  {MARKER}"

    @property
    def line(self) -> str:
        """The edit's own line, without indentation."""
        return f"{self.text}  {MARKER}"

    def __str__(self) -> str:
        return f"'{self.text}' behind '{self.after}' in '{self.scope or 'the top level'}'"


@dataclass(frozen=True)
class Recipe:
    """A named set of edits, of either kind and several per file if need be, that only make sense together."""

    name: str
    edits: tuple[Edit | Line, ...]


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
