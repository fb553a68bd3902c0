"""PLY files (Stanford): a text header that lists elements and their properties, then their rows."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np

_TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4",
    "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
    "float32": "f4", "float64": "f8",
}  # fmt: skip


def read(file: BinaryIO, name: str) -> np.ndarray:
    """x, y, z (N, 3) float64 of the vertices of an open PLY file. Raises RuntimeError naming the file."""
    encoding, elements = _header(file, name)
    for element, count, properties in elements:
        if element == "vertex":
            return _vertices(file, name, encoding, count, properties)
        _skip(file, name, encoding, count, properties)
    raise RuntimeError(f"{name}: no element vertex in the PLY header")


def dump(points: np.ndarray, ascii: bool) -> bytes:
    """The bytes of a PLY file of (N, 3) points in float64."""
    header = (
        f"ply\nformat {'ascii' if ascii else 'binary_little_endian'} 1.0\nelement vertex {len(points)}\n"
        "property double x\nproperty double y\nproperty double z\nend_header\n"
    )
    rows = np.asarray(points, dtype="<f8")
    body = "".join(f"{x:.17g} {y:.17g} {z:.17g}\n" for x, y, z in rows).encode() if ascii else rows.tobytes()
    return header.encode() + body


Element = tuple[str, int, list[tuple[str, str]]]


def _header(file: BinaryIO, name: str) -> tuple[str, list[Element]]:
    if file.readline().strip() != b"ply":
        raise RuntimeError(f"{name}: the first line is not 'ply', so this is no PLY file")
    encoding, elements = "", list[Element]()
    while True:
        line = file.readline()
        if not line:
            raise RuntimeError(f"{name}: no end_header line in the PLY file")
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
        except (IndexError, KeyError, ValueError) as error:
            raise RuntimeError(f"{name}: cannot read the PLY header line {line!r}") from error
    if encoding not in ("ascii", "binary_little_endian"):
        raise RuntimeError(
            f"{name}: PLY format {encoding!r} is not read by the stand-in for open3d (ascii and "
            "binary_little_endian are). Install the real one: pip install open3d"
        )
    return encoding, elements


def _record(name: str, properties: list[tuple[str, str]]) -> np.dtype:
    if any(kind == "list" for _, kind in properties):
        raise RuntimeError(f"{name}: list properties at or before the vertices are not read by the stand-in for open3d")
    return np.dtype([(field, "<" + kind) for field, kind in properties])


def _skip(file: BinaryIO, name: str, encoding: str, count: int, properties: list[tuple[str, str]]) -> None:
    if encoding == "ascii":
        for _ in range(count):
            file.readline()
    else:
        file.seek(count * _record(name, properties).itemsize, 1)


def _vertices(file: BinaryIO, name: str, encoding: str, count: int, properties: list[tuple[str, str]]) -> np.ndarray:
    names = [field for field, _ in properties]
    missing = [axis for axis in "xyz" if axis not in names]
    if missing:
        raise RuntimeError(f"{name}: vertices have no property {', '.join(missing)}")
    row = _record(name, properties)
    if encoding == "binary_little_endian":
        data = file.read(count * row.itemsize)
        if len(data) < count * row.itemsize:
            raise RuntimeError(f"{name}: {count} vertices announced, but the file ends early")
        rows = np.frombuffer(data, dtype=row, count=count)
        return np.stack([rows[axis].astype(np.float64) for axis in "xyz"], axis=1)
    columns = [names.index(axis) for axis in "xyz"]
    try:
        values = [[float(words[c]) for c in columns] for words in (file.readline().split() for _ in range(count))]
    except (ValueError, IndexError) as error:
        raise RuntimeError(f"{name}: {count} vertices announced, but a row is no row of numbers") from error
    return np.array(values, dtype=np.float64).reshape(count, 3)
