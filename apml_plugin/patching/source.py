"""One Python file as bytes: marked lines are inserted where the syntax tree says, and removed again.

Nothing is rewritten. Whole lines are inserted at line boundaries and the same lines are dropped again, so line ends,
tabs, a missing final newline, a byte order mark and every comment stay as they were.
"""

from __future__ import annotations

import ast
import contextlib
import re
from collections import Counter
from collections.abc import Collection, Iterable

from ..errors import PatchError
from ..files import sources
from .places import import_place, place, without
from .records import MARKER, SOURCE, Line

_BOM = b"\xef\xbb\xbf"
_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_END = re.compile(rb"[\r\n]*\Z")
_IMPORT = re.compile(rf"from apml_plugin\.(?:hooks|hosts|hosts\.training|hosts\.pointr) import (\w+)  {MARKER}")
"""An import that any version inserted; the current one always imports from `SOURCE`."""
_OURS = re.compile(
    r"(?:@(?:(?:takes|hoists|keeps_host)_loss|trains_with_loss(?:\(\w+=True\))?|lets_loss_through\([\"\w, ]*\))"
    r"|(?P<own>[^=]+) = (?:training_loss\((?P=own)\)|(?:host_loss_name|training_value)\((?P=own), .*\))"
    rf"|(?:[^=]+ = )?csi2pointcloud\.\w+\([\w, ]+\))  {MARKER}"
)
"""Every other line that any version inserted. A marked line that does not match was changed by hand."""


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


def marked(data: bytes) -> dict[int, str]:
    """The lines that end in the mark, outside of strings: 1-based number -> text without indentation.

    In a file that does not parse, these are the lines that this plugin writes, wherever they are.
    """
    if MARKER.encode() not in data:
        return {}
    texts = ((number, raw.decode("latin-1").strip()) for number, raw in enumerate(split(data)[1], start=1))
    ending = {number: text for number, text in texts if text.endswith(MARKER)}
    inside: set[int] = set()
    tree = _tree(data)
    if tree is None:
        return {number: text for number, text in ending.items() if _is_ours(text)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)):
            inside.update(range(node.lineno, node.end_lineno or 0))  # only what follows a string can be a comment
    return {number: text for number, text in ending.items() if number not in inside}


def _is_ours(text: str) -> bool:
    return bool(_IMPORT.fullmatch(text) or _OURS.fullmatch(text))


def bare(data: bytes) -> bytes:
    """`data` with the marked lines turned into comments, so that all other lines keep their numbers."""
    lines = marked(data)
    mark, all_lines = split(data)
    # Not empty lines: a lone CR before the LF of an emptied line would read as one line end.
    return mark + b"".join(b"#" + _end(raw) if n in lines else raw for n, raw in enumerate(all_lines, start=1))


def found(data: bytes, file: str, known: Iterable[Line]) -> dict[Line, int]:
    """The `known` lines that are where they belong -> how many lines that are not ours are above each."""
    lines = marked(data)
    placed = {(number - 1 - above, text) for above, (number, text) in enumerate(lines.items())}
    result = {}
    with contextlib.suppress(PatchError):  # without the marked lines the file may not parse
        tree = parse(_without(data, lines), file) if lines else ast.Module([], [])
        for edit in known if lines else ():
            with contextlib.suppress(PatchError):
                at, _ = place(tree, edit)
                if (at, edit.line) in placed:
                    result[edit] = at
    return result


def texts(data: bytes) -> Counter[str]:
    """The marked lines of a file, each as this version writes it, with their counts."""
    import_line = f"from {SOURCE} import {{}}  {MARKER}"
    lines = marked(data).values()
    return Counter(import_line.format(match[1]) if (match := _IMPORT.fullmatch(text)) else text for text in lines)


def present(data: bytes, file: str, known: Iterable[Line]) -> frozenset[Line]:
    """The `known` lines that are in the file. Raises PatchError if it is half patched or was edited by hand."""
    known, lines = tuple(known), marked(data)
    if lines:
        parse(data, file)  # names what is wrong with the file
    placed = found(data, file, known)
    wanted = Counter(text for _, text in {(at, edit.line) for edit, at in placed.items()})
    if texts(data) == wanted + Counter({edit.import_line for edit in placed}):
        return frozenset(placed)
    raise PatchError(
        f"{file} is half patched or was edited by hand after patching: its lines marked '{MARKER}' (line "
        f"{', '.join(map(str, lines))}) are not those that belong there (an import and "
        f"{', '.join(map(str, known))}). Run the patch with --revert, or delete the marked lines, then patch again. "
        "Nothing was changed"
    )


def put(data: bytes, file: str, edits: Collection[Line] = (), known: Iterable[Line] = ()) -> bytes:
    """`data` with the lines of `edits` and their imports, and with no other line of ours. Every other byte is kept.

    Args:
        known: further lines that may be in the file, besides those that any version inserts.

    Raises:
        PatchError: a place is missing or ambiguous, or a marked line was changed by hand, so that removing it could
            lose the user's code.
    """
    lines, ours = marked(data), {edit.line for edit in (*edits, *known)}
    for number, text in lines.items():
        if not (text in ours or _is_ours(text)):
            raise PatchError(
                f"{file}, line {number} carries the mark '{MARKER}' but is not a line this patch inserts: {text!r}. "
                "Delete or unmark it by hand, then revert again. Nothing was changed"
            )
    result = _without(data, lines)
    if edits:
        result = _with(result, file, edits)
    if lines and _tree(data):
        parse(result, file)  # a block may hold nothing but our line
    imported = {match[1] for text in lines.values() if (match := _IMPORT.fullmatch(text))}
    for name in imported - {edit.name for edit in edits}:
        if left := _uses(bare(data), name):
            raise PatchError(
                f"{file}, line {left[0]} uses {name} without the mark '{MARKER}': its import would go. "
                "Delete that line by hand, then revert again. Nothing was changed"
            )
    return result


def _tree(data: bytes) -> ast.Module | None:
    """The syntax tree, or None if the file does not parse."""
    try:
        return sources.parse(data)
    except SyntaxError:
        return None


def _uses(data: bytes, name: str) -> list[int]:
    """The lines that use a name that no import binds; in a file that does not parse, those with the word in code."""
    tree = _tree(data)
    if tree is None:
        word = re.compile(rb"[^#]*\b%s\b" % name.encode())
        return [number for number, line in enumerate(split(data)[1], start=1) if word.match(line)]
    if any(isinstance(node, ast.alias) and (node.asname or node.name) == name for node in ast.walk(tree)):
        return []
    return [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == name]


def _without(data: bytes, numbers: Collection[int]) -> bytes:
    mark, lines = split(data)
    kept = [line for number, line in enumerate(lines, start=1) if number not in numbers]
    if len(lines) in numbers and kept and not _end(lines[-1]):
        kept[-1] = _END.sub(b"", kept[-1], count=1)
    return mark + b"".join(kept)


def _with(data: bytes, file: str, edits: Iterable[Line]) -> bytes:
    """`data`, which has no line of ours, with the lines of the edits."""
    tree, (mark, lines) = parse(data, file), split(data)
    placed = {edit: place(tree, edit) for edit in edits}
    unsafe = PatchError(f"{file} is laid out in a way this patch cannot edit safely. Nothing was changed")
    wanted: dict[int, list[bytes]] = {}
    for first in {edit.name: edit for edit in reversed(placed)}.values():
        top = [s.lineno for e, (_, s) in placed.items() if e.name == first.name and e.after and not e.scope]
        wanted.setdefault(import_place(tree, min(top, default=None)), []).insert(0, first.import_line.encode())
    for edit, (at, statement) in placed.items():
        indent = re.match(rb"[ \t\f]*", lines[statement.lineno - 1]).group()  # type: ignore[union-attr]
        if len(indent) != statement.col_offset:
            raise unsafe  # such as the body of an `if` on the line of its head
        if (text := indent + edit.line.encode()) not in (here := wanted.setdefault(at, [])):
            here.append(text)
    out: list[bytes] = []
    inserted: set[int] = set()
    for number in range(len(lines) + 1):
        for text in wanted.get(number, ()):
            if out and not _end(out[-1]):
                # The file has no final newline, so a line after its last one gets none either.
                out[-1] += _newline(lines, number - 1)
            else:
                text += _newline(lines, min(number, len(lines) - 1))
            out.append(text)
            inserted.add(len(out))
        out += lines[number : number + 1]
    result = mark + b"".join(out)
    try:
        # The new tree must be the old one plus the inserted statements and decorators.
        same = ast.dump(tree) == ast.dump(without(ast.parse(result), inserted))
        if same and present(result, file, placed) == placed.keys():
            return result
    except (SyntaxError, ValueError, RecursionError, MemoryError, PatchError):
        pass
    raise unsafe


def _end(line: bytes) -> bytes:
    """The line end of `line`; empty if it has none."""
    return _END.search(line).group()  # type: ignore[union-attr]


def _newline(lines: list[bytes], number: int) -> bytes:
    """The line end in use around line `number`."""
    for line in (lines[number], lines[number - 1], lines[0]):
        if _end(line):
            return _end(line)
    return b"\n"
