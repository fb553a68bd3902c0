"""One Python file as bytes: marked lines go in where the syntax tree says, and come out again.

Nothing is ever rewritten. Whole lines go in at line boundaries and the same lines are dropped again, so
line ends, tabs, a missing final newline, a byte order mark and every comment stay what they were.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from ..errors import PatchError
from ..files import sources
from .placing import definitions, import_place, located, place, statement_lines, without
from .records import MARKER, SOURCE, Edit, Line

__all__ = ["Marked", "bare", "definitions", "insert", "is_patched", "marked", "parse", "present", "remove", "split"]

_BOM = b"\xef\xbb\xbf"
_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_END = re.compile(rb"[\r\n]*\Z")
_FORMER = re.compile(r"^from apml_plugin\.hosts(?:\.training|\.pointr)? import ")
"""How the import of an inserted line began before there was one module for all of them."""
_NOW = f"from {SOURCE} import "


def parse(data: bytes, file: str) -> ast.Module:
    """The syntax tree of a file's bytes. Raises PatchError naming the file and line when it does not parse."""
    try:
        return sources.parse(data)
    except SyntaxError as error:
        raise PatchError(f"{file}{sources.why(error)}; repair it first, nothing was changed") from None


def split(data: bytes) -> tuple[bytes, list[bytes]]:
    """(byte order mark or nothing, lines with their ends), the lines being those Python counts."""
    mark = _BOM if data.startswith(_BOM) else b""
    return mark, _LINE.findall(data[len(mark) :])


def bare(data: bytes, lines: Collection[int] | None = None) -> bytes:
    """`data` with `lines` (1-based; by default every marked one) made comments: all others keep their numbers."""
    if lines is None:
        lines = _marked_lines(data, "") if MARKER.encode() in data else ()
    mark, all_lines = split(data)
    # Not empty: a lone CR before an emptied line's LF would become one line end.
    kept = [b"#" + _end(line) if n in lines else line for n, line in enumerate(all_lines, start=1)]
    return mark + b"".join(kept)


def insert(data: bytes, *edits: Edit | Line) -> bytes:
    """`data` with the lines of the edits, each import once. Raises PatchError if a place is missing or ambiguous."""
    file = edits[0].file
    there = set(_marked_lines(data, file).values()) if MARKER.encode() in data else set()
    tree, full = parse(bare(data), file), parse(data, file)
    mark, lines = split(data)
    wanted: dict[int, list[bytes]] = {}
    for edit in {e.import_line: e for e in edits if _import(e) not in there}.values():
        lines_of = [place(tree, e)[1] for e in edits if isinstance(e, Line) and not e.scope and e.name == edit.name]
        wanted.setdefault(import_place(full, min(lines_of, default=None)), []).append(edit.import_line.encode())
    for edit in edits:
        at, model = place(tree, edit)
        indent = re.match(rb"[ \t\f]*", lines[model - 1]).group()  # type: ignore[union-attr]
        wanted.setdefault(at, []).append(indent + edit.line.encode())
    out: list[bytes] = []
    for number in range(len(lines) + 1):
        for text in wanted.get(number, ()):
            if out and not _end(out[-1]):
                # The file has no final newline: what goes behind its last line has none either.
                out[-1] += _newline(lines, number - 1)
                out.append(text)
            else:
                out.append(text + _newline(lines, min(number, len(lines) - 1)))
        out += lines[number : number + 1]
    result = mark + b"".join(out)
    if not _adds_only(data, result, edits):
        raise PatchError(f"{file} is laid out in a way this patch cannot edit safely. Nothing was changed")
    return result


@dataclass(frozen=True)
class Marked:
    """The marked lines of a file (1-based number -> text).

    imports: those some known edit brings. placed: each edit's own line where it belongs. loose: an edit's own line
    elsewhere, or once too often. strange: everything else.
    """

    imports: dict[int, str]
    placed: dict[Edit | Line, int]
    loose: dict[int, str]
    strange: dict[int, str]

    @property
    def any(self) -> bool:
        return bool(self.imports or self.placed or self.loose or self.strange)

    @property
    def lines(self) -> list[int]:
        return sorted({*self.imports, *self.placed.values(), *self.loose, *self.strange})


def marked(data: bytes, *known: Edit | Line) -> Marked:
    """Sort the marked lines of a file by the edits that could have put them there.

    Text inside a string is text, not a marked line.
    """
    if MARKER.encode() not in data:
        return Marked({}, {}, {}, {})
    file = known[0].file if known else ""
    found = _marked_lines(data, file)
    tree = parse(data, file)
    alone = statement_lines(tree)
    texts, imports = {edit.line for edit in known}, {_import(edit) for edit in known}
    top = {node.lineno for node in tree.body if isinstance(node, ast.ImportFrom)}
    brought = {n: text for n, text in found.items() if text in imports and n in top}
    own = {n: text for n, text in found.items() if text in texts and n in alone}
    strange = {n: text for n, text in found.items() if n not in brought and n not in own}
    placed: dict[Edit | Line, int] = {}
    stripped = parse(bare(data, [*brought, *own]), file)
    for edit in known:
        try:
            here = located(tree, stripped, edit, own)
        except PatchError:
            continue
        for number in here:
            if own[number] == edit.line and number not in placed.values() and edit not in placed:
                placed[edit] = number
    loose = {n: text for n, text in own.items() if n not in placed.values()}
    return Marked(brought, placed, loose, strange)


def present(data: bytes, known: Iterable[Edit | Line]) -> frozenset[Edit | Line]:
    """Which of the `known` edits of a file are in it; PatchError for anything half in, or changed by hand."""
    known = tuple(known)
    found = marked(data, *known)
    if not found.any:
        return frozenset()
    needed = sorted({_import(edit) for edit in found.placed})
    if not found.strange and not found.loose and sorted(found.imports.values()) == needed:
        return frozenset(found.placed)
    raise PatchError(
        f"{known[0].file} is half patched or was edited by hand after patching: its lines marked '{MARKER}' (line "
        f"{', '.join(map(str, found.lines))}) are not those that belong there (an import and {_listed(known)}). Run "
        "the patch with --revert, or delete the marked lines, then patch again. Nothing was changed"
    )


def is_patched(data: bytes, edit: Edit | Line) -> bool:
    """True with both lines in place, False with no marked line at all, PatchError for anything between."""
    return edit in present(data, [edit])


def remove(data: bytes, *edits: Edit | Line, staying: Iterable[Edit | Line] = ()) -> bytes:
    """`data` without the edits' marked lines, every other byte kept; `staying`: edits that may be there and remain.

    Raises PatchError for a marked line that was changed by hand: removing it could lose the user's code.
    """
    file = edits[0].file
    found = marked(data, *edits, *staying)
    if found.strange:
        number, text = next(iter(found.strange.items()))
        raise PatchError(
            f"{file}, line {number} carries the mark '{MARKER}' but is not a line this patch inserts: {text!r}. "
            "Delete or unmark it by hand, then revert again. Nothing was changed"
        )
    texts, needed = {e.line for e in edits}, {_import(e) for e in found.placed if e not in edits}
    gone = {number for edit, number in found.placed.items() if edit in edits}
    gone |= {number for number, text in found.loose.items() if text in texts}
    gone |= {
        number for number, text in found.imports.items() if text not in needed and text in {_import(e) for e in edits}
    }
    mark, lines = split(data)
    kept = [line for number, line in enumerate(lines, start=1) if number not in gone]
    if len(lines) in gone and kept and not _end(lines[-1]):
        kept[-1] = _END.sub(b"", kept[-1], count=1)
    result = mark + b"".join(kept)
    dropped = [edit for edit in edits if _import(edit) in {found.imports[n] for n in gone if n in found.imports}]
    for edit in dropped:
        left = [n.lineno for n in ast.walk(parse(result, file)) if isinstance(n, ast.Name) and n.id == edit.name]
        if left and not _binds(result, edit):
            raise PatchError(
                f"{file}, line {left[0]} uses {edit.name} without the mark '{MARKER}': its import would go. "
                "Delete that line by hand, then revert again. Nothing was changed"
            )
    return result


def _listed(edits: Iterable[Edit | Line]) -> str:
    return ", ".join(str(edit) for edit in edits)


def _binds(data: bytes, edit: Edit | Line) -> bool:
    """Whether the file imports the edit's name on a line of its own, without our mark."""
    return any(
        isinstance(node, ast.ImportFrom) and any((alias.asname or alias.name) == edit.name for alias in node.names)
        for node in ast.walk(parse(data, edit.file))
    )


def _marked_lines(data: bytes, file: str) -> dict[int, str]:
    """Lines that end in the mark (1-based number -> text without indentation), those inside strings left out."""
    inside = _lines_inside_strings(parse(data, file))
    texts = ((number, raw.decode("latin-1").strip()) for number, raw in enumerate(split(data)[1], start=1))
    return {n: _FORMER.sub(_NOW, text) for n, text in texts if text.endswith(MARKER) and n not in inside}


def _import(edit: Edit | Line) -> str:
    """The import an edit needs, as it would be written today."""
    return _FORMER.sub(_NOW, edit.import_line)


def _end(line: bytes) -> bytes:
    """The line end of a line, if it has one."""
    return _END.search(line).group()  # type: ignore[union-attr]


def _newline(lines: list[bytes], number: int) -> bytes:
    """The line end in use around a line."""
    for line in (lines[number], lines[number - 1], lines[0]):
        if _end(line):
            return _end(line)
    return b"\n"


def _lines_inside_strings(tree: ast.Module) -> set[int]:
    """Lines that do not end outside a string: a comment cannot be there."""
    inside: set[int] = set()
    for node in ast.walk(tree):
        text = isinstance(node, ast.JoinedStr) or (
            isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)
        )
        if text:
            inside.update(range(node.lineno, node.end_lineno))  # type: ignore[attr-defined]
    return inside


def _adds_only(data: bytes, result: bytes, edits: Iterable[Edit | Line]) -> bool:
    """True if the new file parses to the old tree plus the edits' statements and decorators, and nothing else."""
    edits = tuple(edits)
    try:
        after = ast.parse(result)
        before, found = ast.parse(data), marked(result, *edits)
        # Lines that were marked before (an edit added to a patched file) are left out on both sides.
        old = without(before, set(_marked_lines(data, "") if MARKER.encode() in data else ()))
        same = ast.dump(old) == ast.dump(without(after, set(_marked_lines(result, ""))))
    except (SyntaxError, ValueError, RecursionError, MemoryError, PatchError):
        return False
    return same and all(edit in found.placed for edit in edits)
