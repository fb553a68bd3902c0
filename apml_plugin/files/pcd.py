"""PCD v0.7 files (Point Cloud Library): a text header, then rows as text or as packed little-endian numbers."""

from __future__ import annotations

import math
from typing import BinaryIO

import numpy as np

from apml_plugin.errors import CloudFileError

from .rows import header_lines, packed, written


def read(file: BinaryIO, size: int) -> np.ndarray:
    """x, y, z (N, 3) float64 of an open PCD file of `size` bytes. Raises CloudFileError."""
    header: dict[str, list[str]] = {}
    for line in header_lines(file):
        key, *values = line.decode("ascii", "replace").split("#")[0].split() or [""]
        header[key] = values
        if key == "DATA":
            break
    else:
        raise CloudFileError("no DATA line, so this is no PCD file")
    try:
        row = _row(header)
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
        return packed(file, size, row, count, "points")
    if encoding == "ascii":
        starts = np.cumsum([0, *(math.prod(row[field].shape) for field in row.names or ())]).tolist()
        columns = dict(zip(row.names or (), starts, strict=False))
        return written(file, [columns[axis] for axis in "xyz"], count, "points")
    raise CloudFileError(f"DATA {encoding[:40]} is not read; write it as ascii or binary")


def dump(points: np.ndarray, ascii: bool) -> bytes:
    """The bytes of a PCD file of (N, 3) points in float32."""
    header = (
        "# .PCD v0.7 - Point Cloud Data file format\nVERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\n"
        f"WIDTH {len(points)}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {len(points)}\n"
        f"DATA {'ascii' if ascii else 'binary'}\n"
    )
    rows = np.asarray(points, dtype="<f4")
    body = "".join(f"{x:.9g} {y:.9g} {z:.9g}\n" for x, y, z in rows).encode() if ascii else rows.tobytes()
    return header.encode() + body


def _row(header: dict[str, list[str]]) -> np.dtype:
    """One point as a packed NumPy record; a field called _ is padding and may occur more than once."""
    fields = header["FIELDS"]
    counts = [int(c) for c in header.get("COUNT", ["1"] * len(fields))]
    kinds = {"F": "f", "I": "i", "U": "u"}
    record: list[tuple[str, str, int]] = []
    for i, (field, size, kind, count) in enumerate(zip(fields, header["SIZE"], header["TYPE"], counts, strict=True)):
        record.append((f"_{i}" if field == "_" else field, f"<{kinds[kind]}{int(size)}", count))
    return np.dtype(record)
