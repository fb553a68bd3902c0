"""PLY (Stanford) and PCD v0.7 (Point Cloud Library) files.

Both are a text header of short lines, followed by as many rows as the header announces, as text or as packed
little-endian numbers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from apml_plugin.errors import CloudFileError

_LONGEST_LINE, _LONGEST_HEADER = 1 << 16, 1 << 10  # characters, lines

_PLY_TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4",
    "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
    "float32": "f4", "float64": "f8",
}  # fmt: skip
_PCD_TYPES = {"F": "f", "I": "i", "U": "u"}

Element = tuple[str, int, list[tuple[str, str]]]
"""Of a PLY header: the element's name, its number of rows, and (name, type) of each property."""


def lines(file: BinaryIO, most: int | None = None) -> Iterator[bytes]:
    """Lines up to the end of the file. Raises CloudFileError for a line that is too long, or beyond `most` lines."""
    for number in itertools.count(1):
        line = file.readline(_LONGEST_LINE + 1)
        if not line:
            return
        if len(line) > _LONGEST_LINE:
            raise CloudFileError(f"line {number} has more than {_LONGEST_LINE} characters: it is not a row of numbers")
        if most and number > most:
            raise CloudFileError(f"the header has more than {most} lines, so it is not a header")
        yield line


def read_ply(file: BinaryIO, size: int) -> np.ndarray:
    """x, y, z (N, 3) float64 of the vertices of an open PLY file of `size` bytes. Raises CloudFileError."""
    encoding, elements = _ply_header(file)
    for element, count, properties in elements:
        if element == "vertex":
            return _vertices(file, size, encoding, count, properties)
        _skip(file, size, encoding, element, count, properties)
    raise CloudFileError("no element vertex in the PLY header")


def read_pcd(file: BinaryIO, size: int) -> np.ndarray:
    """x, y, z (N, 3) float64 of an open PCD file of `size` bytes. Raises CloudFileError."""
    header: dict[str, list[str]] = {}
    for line in lines(file, _LONGEST_HEADER):
        key, *values = line.decode("ascii", "replace").split("#")[0].split() or [""]
        header[key] = values
        if key == "DATA":
            break
    else:
        raise CloudFileError("no DATA line, so this is not a PCD file")
    try:
        row = _pcd_record(header)
        count = int(header["POINTS"][0]) if "POINTS" in header else int(header["WIDTH"][0]) * int(header["HEIGHT"][0])
        encoding = header["DATA"][0]
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise CloudFileError(f"the PCD header is damaged ({type(error).__name__}: {str(error)[:80]})") from None
    missing = {"x", "y", "z"} - set(row.names or ())
    if missing:
        raise CloudFileError(f"no field {', '.join(sorted(missing))} among {' '.join(header['FIELDS'])[:80]}")
    if any(math.prod(row[axis].shape) != 1 for axis in "xyz") or count < 0:
        raise CloudFileError("the PCD header is damaged: a point has one x, one y and one z")
    if encoding == "binary":
        return _packed(file, size, row, count, "points")
    if encoding == "ascii":
        starts = np.cumsum([0, *(math.prod(row[field].shape) for field in row.names or ())]).tolist()
        columns = dict(zip(row.names or (), starts, strict=False))
        return _text(file, [columns[axis] for axis in "xyz"], count, "points")
    raise CloudFileError(f"DATA {encoding[:40]} is not supported; write it as ascii or binary")


def dump_ply(points: np.ndarray, ascii: bool) -> bytes:
    """The bytes of a PLY file of (N, 3) points in float64."""
    header = (
        f"ply\nformat {'ascii' if ascii else 'binary_little_endian'} 1.0\nelement vertex {len(points)}\n"
        "property double x\nproperty double y\nproperty double z\nend_header\n"
    )
    return header.encode() + _body(np.asarray(points, dtype="<f8"), ascii, digits=17)


def dump_pcd(points: np.ndarray, ascii: bool) -> bytes:
    """The bytes of a PCD file of (N, 3) points in float32."""
    header = (
        "# .PCD v0.7 - Point Cloud Data file format\nVERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\n"
        f"WIDTH {len(points)}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {len(points)}\n"
        f"DATA {'ascii' if ascii else 'binary'}\n"
    )
    return header.encode() + _body(np.asarray(points, dtype="<f4"), ascii, digits=9)


def _body(rows: np.ndarray, ascii: bool, digits: int) -> bytes:
    if not ascii:
        return rows.tobytes()
    return "".join(" ".join(f"{value:.{digits}g}" for value in row) + "\n" for row in rows).encode()


def _ply_header(file: BinaryIO) -> tuple[str, list[Element]]:
    header = lines(file, _LONGEST_HEADER)
    if next(header, b"").strip() != b"ply":
        raise CloudFileError("the first line is not 'ply', so this is not a PLY file")
    encoding, elements = "", list[Element]()
    for line in header:
        words = line.decode("ascii", "replace").split()
        try:
            if words[:1] == ["end_header"]:
                break
            if words[:1] == ["format"]:
                encoding = words[1]
            elif words[:1] == ["element"]:
                elements.append((words[1], int(words[2]), []))
            elif words[:1] == ["property"]:
                elements[-1][2].append((words[-1], "list" if words[1] == "list" else _PLY_TYPES[words[1]]))
        except (IndexError, KeyError, ValueError):
            raise CloudFileError(f"cannot read the PLY header line {line[:80]!r}") from None
    else:
        raise CloudFileError("no end_header line in the PLY file")
    if encoding not in ("ascii", "binary_little_endian"):
        raise CloudFileError(f"PLY format {encoding[:40]!r} is not supported; write ascii or binary_little_endian")
    if any(count < 0 for _, count, _ in elements):
        raise CloudFileError("the PLY header is damaged: it announces a negative number of rows")
    return encoding, elements


def _ply_record(properties: list[tuple[str, str]]) -> np.dtype:
    if any(kind == "list" for _, kind in properties):
        raise CloudFileError("list properties at or before the vertices are not supported; write the vertices first")
    try:
        return np.dtype([(field, "<" + kind) for field, kind in properties])
    except ValueError as error:  # the same name twice
        raise CloudFileError(f"the PLY header is damaged ({error})") from None


def _pcd_record(header: dict[str, list[str]]) -> np.dtype:
    """One point as a packed NumPy record; a field called _ is padding and may occur more than once."""
    fields = header["FIELDS"]
    counts = [int(c) for c in header.get("COUNT", ["1"] * len(fields))]
    record: list[tuple[str, str, int]] = []
    for i, (field, size, kind, count) in enumerate(zip(fields, header["SIZE"], header["TYPE"], counts, strict=True)):
        record.append((f"_{i}" if field == "_" else field, f"<{_PCD_TYPES[kind]}{int(size)}", count))
    return np.dtype(record)


def _skip(
    file: BinaryIO, size: int, encoding: str, element: str, count: int, properties: list[tuple[str, str]]
) -> None:
    if encoding == "ascii":
        enough = sum(1 for line in itertools.islice((x for x in lines(file) if x.strip()), count)) == count
    else:
        past = file.tell() + count * _ply_record(properties).itemsize
        if enough := past <= size:
            file.seek(past)
    if not enough:
        raise CloudFileError(f"{count} rows of element {element[:40]} announced, but the file ends before them")


def _vertices(file: BinaryIO, size: int, encoding: str, count: int, properties: list[tuple[str, str]]) -> np.ndarray:
    names = [field for field, _ in properties]
    missing = [axis for axis in "xyz" if axis not in names]
    if missing:
        raise CloudFileError(f"vertices have no property {', '.join(missing)}")
    row = _ply_record(properties)
    if encoding == "ascii":
        return _text(file, [names.index(axis) for axis in "xyz"], count, "vertices")
    return _packed(file, size, row, count, "vertices")


def _packed(file: BinaryIO, size: int, row: np.dtype, count: int, what: str) -> np.ndarray:
    """x, y, z (N, 3) of `count` binary rows of the record `row`; `size` is that of the whole file."""
    need, left = count * row.itemsize, size - file.tell()
    if not 0 <= need <= left:
        raise CloudFileError(f"{count} {what} announced, but the file ends early: it has {left} of {need} bytes")
    rows = np.frombuffer(file.read(need), dtype=row, count=count)
    return np.stack([rows[axis].astype(np.float64).reshape(count) for axis in "xyz"], axis=1)


def _text(file: BinaryIO, columns: list[int], count: int, what: str) -> np.ndarray:
    """x, y, z (N, 3) of `count` rows of text, taken from these columns."""
    done = 0

    def numbers() -> Iterator[float]:
        nonlocal done
        for line in itertools.islice((line for line in lines(file) if line.strip()), max(count, 0)):
            words = line.split()
            yield from [float(words[column]) for column in columns]
            done += 1

    try:
        values = np.fromiter(numbers(), np.float64)
    except (ValueError, IndexError) as error:
        raise CloudFileError(f"row {done + 1} of {count} {what} is not a row of numbers ({str(error)[:80]})") from None
    if done != count:
        raise CloudFileError(f"{count} {what} announced, {done} found: the file ends early")
    return values.reshape(count, 3)
