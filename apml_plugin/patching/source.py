"""One Python file as bytes: where the syntax tree says a line goes in, and how it comes out again.

Nothing is ever rewritten. Whole lines go in at line boundaries and the same lines are dropped again, so
line ends, tabs, a missing final newline, a byte order mark and every comment stay what they were.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import PatchError
from .records import MARKER, Edit

_BOM = b"\xef\xbb\xbf"
_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_END = re.compile(rb"[\r\n]*\Z")

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def parse(data: bytes, file: str) -> ast.Module:
    """The syntax tree of a file's bytes. Raises PatchError naming the file and line when it does not parse."""
    try:
        return ast.parse(data)
    except (SyntaxError, ValueError) as error:
        where = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise PatchError(f"{file}{where} is not valid Python ({error}); repair it first, nothing was changed") from None


def split(data: bytes) -> tuple[bytes, list[bytes]]:
    """(byte order mark or nothing, lines with their ends), the lines being those Python counts."""
    mark = _BOM if data.startswith(_BOM) else b""
    return mark, _LINE.findall(data[len(mark) :])


def definitions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Definition]]:
    """Every class and function with its qualified name, also those inside if and try blocks."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Definition):
            yield prefix + node.name, node
            yield from definitions(node, f"{prefix}{node.name}.")
        else:
            yield from definitions(node, prefix)


def insert(data: bytes, edit: Edit) -> bytes:
    """`data` with the edit's two lines. Raises PatchError if the place is missing or ambiguous."""
    tree = parse(data, edit.file)
    node = _anchor(tree, edit)
    mark, lines = split(data)
    above = node.lineno - 1
    indent = re.match(rb"[ \t\f]*", lines[above]).group()  # type: ignore[union-attr]
    wanted = {above: indent + edit.decorator_line.encode()}
    place = _import_place(tree)
    wanted[place] = edit.import_line.encode() + (_newline(lines, place) + wanted[place] if place in wanted else b"")
    out = []
    for number, line in enumerate(lines):
        if number in wanted:
            out += [wanted[number], _newline(lines, number)]
        out.append(line)
    result = mark + b"".join(out)
    if not _adds_only(edit, tree, result):
        raise PatchError(f"{edit.file} is laid out in a way this patch cannot edit safely. Nothing was changed")
    return result


@dataclass(frozen=True)
class Marked:
    """The marked lines of a file: `ours` are those the edit would insert, `strange` all others."""

    ours: dict[int, str]
    strange: dict[int, str]

    @property
    def any(self) -> bool:
        return bool(self.ours or self.strange)


def marked(data: bytes, edit: Edit) -> Marked:
    """Find marked lines (1-based number -> text). Text inside a string is text, not a marked line."""
    if MARKER.encode() not in data:
        return Marked({}, {})
    tree = parse(data, edit.file)
    inside = _lines_inside_strings(tree)
    statements = _import_lines(tree) | _decorator_lines(tree)
    ours: dict[int, str] = {}
    strange: dict[int, str] = {}
    for number, raw in enumerate(split(data)[1], start=1):
        text = raw.decode("latin-1").strip()
        if not text.endswith(MARKER) or number in inside:
            continue
        known = text in (edit.import_line, edit.decorator_line) and number in statements
        (ours if known else strange)[number] = text
    return Marked(ours, strange)


def is_patched(data: bytes, edit: Edit) -> bool:
    """True with both lines in place, False with no marked line at all, PatchError for anything between."""
    found = marked(data, edit)
    if not found.any:
        return False
    if not found.strange and sorted(found.ours.values()) == sorted((edit.import_line, edit.decorator_line)):
        node = _anchor(parse(data, edit.file), edit)
        if any(decorator.lineno in found.ours for decorator in node.decorator_list):
            return True
    lines = ", ".join(str(number) for number in sorted(found.ours | found.strange))
    raise PatchError(
        f"{edit.file} is half patched or was edited by hand after patching: its lines marked '{MARKER}' (line {lines}) "
        f"are not the two that belong there (an import and '@{edit.decorator}' above '{edit.anchor}'). Run the patch "
        "with --revert, or delete the marked lines, then patch again. Nothing was changed"
    )


def remove(data: bytes, edit: Edit) -> bytes:
    """`data` without the edit's marked lines, every other byte kept.

    Raises PatchError for a marked line that was changed by hand: removing it could lose the user's code.
    """
    found = marked(data, edit)
    if found.strange:
        number, text = next(iter(found.strange.items()))
        raise PatchError(
            f"{edit.file}, line {number} carries the mark '{MARKER}' but is not a line this patch inserts: {text!r}. "
            "Delete or unmark it by hand, then revert again. Nothing was changed"
        )
    mark, lines = split(data)
    result = mark + b"".join(line for number, line in enumerate(lines, start=1) if number not in found.ours)
    left = [
        node.lineno
        for node in ast.walk(parse(result, edit.file))
        if isinstance(node, ast.Name) and node.id == edit.decorator
    ]
    if found.any and left and not _binds(result, edit):
        raise PatchError(
            f"{edit.file}, line {left[0]} uses {edit.decorator} without the mark '{MARKER}': its import would go. "
            "Delete that line by hand, then revert again. Nothing was changed"
        )
    return result


def _binds(data: bytes, edit: Edit) -> bool:
    """Whether the file imports the decorator's name on a line of its own, without our mark."""
    return any(
        isinstance(node, ast.ImportFrom) and any((alias.asname or alias.name) == edit.decorator for alias in node.names)
        for node in ast.walk(parse(data, edit.file))
    )


def _anchor(tree: ast.Module, edit: Edit) -> Definition:
    found = [node for name, node in definitions(tree) if name == edit.anchor]
    if len(found) == 1:
        return found[0]
    what = "is not defined" if not found else f"is defined {len(found)} times"
    raise PatchError(f"{edit.file}: '{edit.anchor}' {what}, so there is no one place to edit. Nothing was changed")


def _import_place(tree: ast.Module) -> int:
    """The 0-based line before which the import goes: behind docstring and leading imports, if there are any."""
    end = 0
    for index, statement in enumerate(tree.body):
        docstring = index == 0 and isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        first = _first_line(statement)
        leading = docstring or isinstance(statement, ast.Import | ast.ImportFrom)
        # A statement that shares its line with a leading one (`import a; b = 1`) is passed over too.
        if not leading and first > end:
            return end or first - 1
        end = statement.end_lineno or first
    return end


def _first_line(statement: ast.stmt) -> int:
    return min([statement.lineno, *(d.lineno for d in getattr(statement, "decorator_list", []))])


def _newline(lines: list[bytes], number: int) -> bytes:
    """The line end in use around a line."""
    for line in (lines[number], lines[number - 1], lines[0]):
        end = _END.search(line)
        if end and end.group():
            return end.group()
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


def _import_lines(tree: ast.Module) -> set[int]:
    return {node.lineno for node in tree.body if isinstance(node, ast.ImportFrom)}


def _decorator_lines(tree: ast.Module) -> set[int]:
    return {decorator.lineno for _, node in definitions(tree) for decorator in node.decorator_list}


def _adds_only(edit: Edit, before: ast.Module, result: bytes) -> bool:
    """True if the new file parses to the old tree plus the import and the decorator, and nothing else."""
    try:
        after = ast.parse(result)
    except (SyntaxError, ValueError):
        return False
    node = _anchor(after, edit)
    node.decorator_list = node.decorator_list[:-1]
    for statement in after.body:
        if not isinstance(statement, ast.ImportFrom) or statement.module != edit.source:
            continue
        if [alias.name for alias in statement.names] == [edit.decorator]:
            after.body.remove(statement)
            break
    return ast.dump(before) == ast.dump(after)
