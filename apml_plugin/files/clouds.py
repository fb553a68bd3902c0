"""Point clouds from .npy, .npz, .h5, .pcd, .ply and text files."""

from __future__ import annotations

import itertools
import math
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from apml_plugin.errors import CloudFileError

from . import ply_pcd
from .opening import open_regular, printable, size_of, why

Cloud = NDArray[np.float64]

KEYS = ("data", "points", "xyz", "pred", "gt", "arr_0")
"""Which array of an .npz or .h5 file is read if it holds several: the first of these names that it has."""

MOST_COLUMNS = 16
"""Three rows of more numbers than this are taken for x, y and z, not for three points with attributes."""

LARGEST = 4 << 30
"""Most bytes of a file, and of an array in it."""
_UNCHECKED, _MOST_COMPRESSION = 16 << 20, 64
"""An array of more than `_UNCHECKED` bytes must not be compressed by more than this factor."""


def read_clouds(path: str | os.PathLike[str]) -> list[Cloud]:
    """The clouds of one file, each (N, 3) float64: x, y, z are the first three columns, others are dropped.

    .npy, .npz and .h5 may hold one cloud (N, C) or many (B, N, C), C >= 3; .pcd, .ply, .xyz, .txt and .pts one.
    Raises CloudFileError naming the file: of an unknown kind, damaged, without points, with NaN or Inf, or (3, N).
    """
    array = read_array(path)
    if array.ndim not in (2, 3) or array.shape[-1] < 3 or 0 in array.shape:
        raise CloudFileError(f"{path}: {_no_points(array.shape)}")
    if array.shape[-2] == 3 and array.shape[-1] > MOST_COLUMNS:
        raise CloudFileError(
            f"{path}: holds an array of shape {array.shape}, which would be 3 points of {array.shape[-1]} columns; "
            "points are rows: save (N, 3), the array with its last two axes swapped"
        )
    array = np.ascontiguousarray(array[..., :3])
    if not np.isfinite(array).all():
        raise CloudFileError(f"{path}: {int((~np.isfinite(array)).any(-1).sum())} points hold NaN or Inf")
    return [array] if array.ndim == 2 else list(array)


def read_array(path: str | os.PathLike[str]) -> Cloud:
    """The numbers in a file as float64, of whatever shape.

    The sizes that a file claims are compared with its real size before memory is allocated. Links to other files are
    not followed. Raises CloudFileError naming the file.
    """
    file = Path(path)
    read = READERS.get(file.suffix.lower())
    if read is None:
        raise CloudFileError(f"{file}: files of this kind are not supported ({', '.join(READERS)} are)")
    try:
        with open_regular(file) as stream:
            size = os.fstat(stream.fileno()).st_size
            if size > LARGEST:
                raise CloudFileError(f"has {size_of(size)}, more than the limit of {size_of(LARGEST)}; split it")
            array = np.asarray(read(stream, size), dtype=np.float64)
            return array if array.flags.writeable else array.copy()
    except CloudFileError as error:
        raise CloudFileError(printable(f"{file}: {error}")) from None
    except OSError as error:
        raise CloudFileError(printable(f"{file}: {why(error)[:300]}")) from None
    except MemoryError:
        raise CloudFileError(f"{file}: needs more memory than is available; split it") from None
    except Exception as error:  # each library raises its own errors for a damaged file
        reason = f"{type(error).__name__}: {' '.join(str(error)[:300].split())[:200]}"
        raise CloudFileError(printable(f"{file}: cannot be read, it may be damaged ({reason})")) from error


def _numpy(stream: BinaryIO, size: int) -> Any:
    head = stream.read(4)
    stream.seek(0)
    if head != b"PK\x03\x04":
        return _array(stream, size)
    with zipfile.ZipFile(stream) as archive:
        names = {name.removesuffix(".npy"): name for name in archive.namelist()}
        entry = archive.getinfo(names[_key(list(names))])
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise CloudFileError("is compressed by a method that NumPy never uses; write it with np.savez_compressed")
        _check_expansion(entry.file_size, entry.compress_size)
        with archive.open(entry) as inner:
            return _array(inner, entry.file_size)


def _array(stream: Any, size: int) -> Any:
    """An array in the .npy format: its header, then as many bytes as the header says."""
    if stream.read(6) != b"\x93NUMPY":
        raise CloudFileError("is not a NumPy file, or holds pickled Python objects, which are never unpickled")
    stream.seek(0)
    if np.lib.format.read_magic(stream) != (1, 0):  # later versions, for records, allow headers of any length
        raise CloudFileError("is not a plain array of numbers; write one with np.save")
    shape, by_column, dtype = np.lib.format.read_array_header_1_0(stream)
    _check_numbers(shape, dtype)
    need, left = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if need > left:
        raise CloudFileError(f"claims {size_of(need)} of numbers and has {size_of(left)}: it is cut off or damaged")
    return np.frombuffer(stream.read(need), dtype).reshape(shape, order="F" if by_column else "C")


def _h5(stream: BinaryIO, size: int) -> Any:
    try:
        import h5py
    except ImportError:
        raise CloudFileError("reading it needs h5py: pip install h5py") from None
    with h5py.File(stream.name, "r") as archive:
        # A link, a virtual data set and an external one all lead to other files.
        links = {name: archive.get(name, getlink=True) for name in archive}
        elsewhere = [name for name, link in links.items() if not isinstance(link, h5py.HardLink)]
        names = [n for n in links if n not in elsewhere and archive.get(n, getclass=True) is h5py.Dataset]
        data = archive[_key(names, elsewhere)]
        if data.is_virtual or data.external:
            raise CloudFileError("has its numbers in other files, which are not read; copy them into one: h5repack")
        _check_numbers(data.shape, data.dtype)
        _check_expansion(math.prod(data.shape) * data.dtype.itemsize, data.id.get_storage_size())
        return data[()]


def _key(names: list[str], elsewhere: list[str] | tuple[()] = ()) -> str:
    for key in [*KEYS, *(names if len(names) == 1 else [])]:
        if key in names:
            return key
    links = f" ({_listed(elsewhere)}: links, which are not followed; copy what they point to into the file)"
    raise CloudFileError(
        f"holds {_listed(names) or 'no arrays'}{links if elsewhere else ''}; none is called {', '.join(KEYS)}"
    )


def _listed(names: Any) -> str:
    shown = [name[:40] for name in itertools.islice(names, 8)]
    return ", ".join([*shown, f"{len(names) - 8} more"] if len(names) > 8 else shown)


def _check_numbers(shape: Any, dtype: Any) -> None:
    """Raises CloudFileError, before anything is read, for what are not numbers or not points."""
    if dtype.kind == "O":
        raise CloudFileError("holds Python objects, which are never unpickled; write plain numbers")
    if dtype.kind not in "biuf":
        raise CloudFileError(f"holds {str(dtype)[:40]}, not numbers")
    if shape is None or len(shape) not in (2, 3) or shape[-1] < 3 or 0 in shape:
        raise CloudFileError(_no_points(shape))


def _no_points(shape: Any) -> str:
    return f"holds an array of shape {str(shape)[:60]}, not points (N, 3) or clouds (B, N, 3)"


def _check_expansion(claimed: int, stored: int) -> None:
    if claimed > LARGEST or claimed > max(_UNCHECKED, _MOST_COMPRESSION * stored):
        raise CloudFileError(
            f"unpacks to {size_of(claimed)} from {size_of(stored)}: it is damaged, made to fill memory, or almost "
            "all zeros; in the last case write it without compression"
        )


def _text(stream: BinaryIO, size: int) -> Any:
    """Rows of numbers separated by blanks, tabs, commas or semicolons; # begins a comment."""
    texts = (line.decode("utf-8", "replace").split("#")[0] for line in ply_pcd.lines(stream))
    rows = (text.replace(",", " ").replace(";", " ") for text in texts if text.strip(" \t\r\n,;"))
    first = next(rows, None)
    if first is None:
        raise CloudFileError(_no_points((0,)))
    return np.loadtxt(itertools.chain([first], rows), ndmin=2)


READERS: dict[str, Callable[[BinaryIO, int], Any]] = {
    ".npy": _numpy,
    ".npz": _numpy,
    ".pcd": ply_pcd.read_pcd,
    ".ply": ply_pcd.read_ply,
    ".xyz": _text,
    ".txt": _text,
    ".pts": _text,
    ".h5": _h5,
    ".hdf5": _h5,
}
