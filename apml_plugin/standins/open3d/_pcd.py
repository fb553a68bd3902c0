"""PCD v0.7 files (Point Cloud Library): a text header, then rows as text or as packed little-endian numbers."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np


def read(file: BinaryIO, name: str) -> np.ndarray:
    """x, y, z (N, 3) float64 of an open PCD file. Raises RuntimeError naming the file."""
    header: dict[str, list[str]] = {}
    while "DATA" not in header:
        line = file.readline()
        if not line:
            raise RuntimeError(f"{name}: no DATA line, so this is no PCD file")
        key, *values = line.decode("ascii", "replace").split("#")[0].split() or [""]
        header[key] = values
    try:
        row = _row(header)
        count = int(header["POINTS"][0]) if "POINTS" in header else int(header["WIDTH"][0]) * int(header["HEIGHT"][0])
        encoding = header["DATA"][0]
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise RuntimeError(f"{name}: the PCD header is damaged ({type(error).__name__}: {error})") from error
    missing = {"x", "y", "z"} - set(row.names or ())
    if missing:
        raise RuntimeError(f"{name}: no field {', '.join(sorted(missing))} among {' '.join(header['FIELDS'])}")
    if encoding == "binary":
        data = file.read(count * row.itemsize)
        if len(data) < count * row.itemsize:
            raise RuntimeError(f"{name}: {count} points announced, but the file ends early")
        rows = np.frombuffer(data, dtype=row, count=count)
        return np.stack([rows[axis].astype(np.float64).reshape(count) for axis in "xyz"], axis=1)
    if encoding == "ascii":
        return _ascii(file, name, row, count)
    raise RuntimeError(
        f"{name}: DATA {encoding} is not read by the stand-in for open3d (ascii and binary are). "
        "Install the real one: pip install open3d"
    )


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


def _ascii(file: BinaryIO, name: str, row: np.dtype, count: int) -> np.ndarray:
    starts, position = {}, 0
    for field in row.names or ():
        starts[field] = position
        position += int(np.prod(row[field].shape, dtype=int))
    columns = [starts[axis] for axis in "xyz"]
    lines = [line for line in file.read().decode("ascii", "replace").splitlines() if line.strip()]
    if len(lines) < count:
        raise RuntimeError(f"{name}: {count} points announced, {len(lines)} found")
    try:
        values = [[float(words[c]) for c in columns] for words in (line.split() for line in lines[:count])]
    except (ValueError, IndexError) as error:
        raise RuntimeError(f"{name}: a row of the PCD file is no row of numbers ({error})") from error
    return np.array(values, dtype=np.float64).reshape(count, 3)
