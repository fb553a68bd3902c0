"""What PLY and PCD files share: a header of short lines, then as many rows as it says, in text or packed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from apml_plugin.errors import CloudFileError

_LONGEST, _MOST = 1 << 16, 1 << 10


def lines(file: BinaryIO, most: int | None = None) -> Iterator[bytes]:
    """Lines up to the end of the file. Raises CloudFileError for one that no header or row has."""
    for number in itertools.count(1):
        line = file.readline(_LONGEST + 1)
        if not line:
            return
        if len(line) > _LONGEST:
            raise CloudFileError(f"line {number} has more than {_LONGEST} characters, so it is no row of numbers")
        if most and number > most:
            raise CloudFileError(f"the header has more than {most} lines, so it is none")
        yield line


def header_lines(file: BinaryIO) -> Iterator[bytes]:
    return lines(file, _MOST)


def packed(file: BinaryIO, size: int, row: np.dtype, count: int, what: str) -> np.ndarray:
    """x, y, z (N, 3) of `count` rows, each as `row` says; `size`: of the whole file."""
    need, left = count * row.itemsize, size - file.tell()
    if not 0 <= need <= left:
        raise CloudFileError(f"{count} {what} announced, but the file ends early: it has {left} of {need} bytes")
    rows = np.frombuffer(file.read(need), dtype=row, count=count)
    return np.stack([rows[axis].astype(np.float64).reshape(count) for axis in "xyz"], axis=1)


def written(file: BinaryIO, columns: list[int], count: int, what: str) -> np.ndarray:
    """x, y, z (N, 3) of `count` rows of text, found in these columns."""
    found = 0

    def numbers() -> Iterator[float]:
        nonlocal found
        for line in itertools.islice((line for line in lines(file) if line.strip()), max(count, 0)):
            words = line.split()
            yield from [float(words[column]) for column in columns]
            found += 1

    try:
        values = np.fromiter(numbers(), np.float64)
    except (ValueError, IndexError) as error:
        raise CloudFileError(f"row {found + 1} of {count} {what} is no row of numbers ({str(error)[:80]})") from None
    if found != count:
        raise CloudFileError(f"{count} {what} announced, {found} found: the file ends early")
    return values.reshape(count, 3)
