"""PLY files (Stanford): a text header that lists elements and their properties, then their rows."""

from __future__ import annotations

import itertools
from typing import BinaryIO

import numpy as np

from apml_plugin.errors import CloudFileError

from .rows import header_lines, lines, packed, written

_TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4",
    "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
    "float32": "f4", "float64": "f8",
}  # fmt: skip

Element = tuple[str, int, list[tuple[str, str]]]


def read(file: BinaryIO, size: int) -> np.ndarray:
    """x, y, z (N, 3) float64 of the vertices of an open PLY file of `size` bytes. Raises CloudFileError."""
    encoding, elements = _header(file)
    for element, count, properties in elements:
        if element == "vertex":
            return _vertices(file, size, encoding, count, properties)
        _skip(file, size, encoding, element, count, properties)
    raise CloudFileError("no element vertex in the PLY header")


def dump(points: np.ndarray, ascii: bool) -> bytes:
    """The bytes of a PLY file of (N, 3) points in float64."""
    header = (
        f"ply\nformat {'ascii' if ascii else 'binary_little_endian'} 1.0\nelement vertex {len(points)}\n"
        "property double x\nproperty double y\nproperty double z\nend_header\n"
    )
    rows = np.asarray(points, dtype="<f8")
    body = "".join(f"{x:.17g} {y:.17g} {z:.17g}\n" for x, y, z in rows).encode() if ascii else rows.tobytes()
    return header.encode() + body


def _header(file: BinaryIO) -> tuple[str, list[Element]]:
    found = header_lines(file)
    if next(found, b"").strip() != b"ply":
        raise CloudFileError("the first line is not 'ply', so this is no PLY file")
    encoding, elements = "", list[Element]()
    for line in found:
        words = line.decode("ascii", "replace").split()
        try:
            if words[:1] == ["end_header"]:
                break
            if words[:1] == ["format"]:
                encoding = words[1]
            elif words[:1] == ["element"]:
                elements.append((words[1], int(words[2]), []))
            elif words[:1] == ["property"]:
                elements[-1][2].append((words[-1], "list" if words[1] == "list" else _TYPES[words[1]]))
        except (IndexError, KeyError, ValueError):
            raise CloudFileError(f"cannot read the PLY header line {line[:80]!r}") from None
    else:
        raise CloudFileError("no end_header line in the PLY file")
    if encoding not in ("ascii", "binary_little_endian"):
        raise CloudFileError(f"PLY format {encoding[:40]!r} is not read; write it as ascii or binary_little_endian")
    if any(count < 0 for _, count, _ in elements):
        raise CloudFileError("the PLY header announces less than nothing: it is damaged")
    return encoding, elements


def _record(properties: list[tuple[str, str]]) -> np.dtype:
    if any(kind == "list" for _, kind in properties):
        raise CloudFileError("list properties at or before the vertices are not read; write the vertices first")
    try:
        return np.dtype([(field, "<" + kind) for field, kind in properties])
    except ValueError as error:  # the same name twice
        raise CloudFileError(f"the PLY header is damaged ({error})") from None


def _skip(
    file: BinaryIO, size: int, encoding: str, element: str, count: int, properties: list[tuple[str, str]]
) -> None:
    if encoding == "ascii":
        enough = sum(1 for line in itertools.islice((x for x in lines(file) if x.strip()), count)) == count
    else:
        past = file.tell() + count * _record(properties).itemsize
        if enough := past <= size:
            file.seek(past)
    if not enough:
        raise CloudFileError(f"{count} rows of element {element[:40]} announced, but the file ends before them")


def _vertices(file: BinaryIO, size: int, encoding: str, count: int, properties: list[tuple[str, str]]) -> np.ndarray:
    names = [field for field, _ in properties]
    missing = [axis for axis in "xyz" if axis not in names]
    if missing:
        raise CloudFileError(f"vertices have no property {', '.join(missing)}")
    row = _record(properties)
    if encoding == "ascii":
        return written(file, [names.index(axis) for axis in "xyz"], count, "vertices")
    return packed(file, size, row, count, "vertices")
