"""Point clouds from the files people keep them in."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apml_plugin.errors import CloudFileError
from apml_plugin.standins.open3d import _pcd, _ply

Cloud = NDArray[np.float64]

KEYS = ("data", "points", "xyz", "pred", "gt", "arr_0")
"""Which array of an .npz or .h5 file is taken when it holds several: the first of these names there is."""


def read_clouds(path: str | os.PathLike[str]) -> list[Cloud]:
    """The clouds of one file, each (N, 3) float64: x, y, z are the first three columns, others are dropped.

    .npy, .npz and .h5 may hold one cloud (N, C) or many (B, N, C), C >= 3; .pcd, .ply, .xyz, .txt and .pts one.
    Raises CloudFileError naming the file: of an unknown kind, damaged, without points, or with NaN or Inf.
    """
    file = Path(path)
    read = READERS.get(file.suffix.lower())
    if read is None:
        raise CloudFileError(f"{file}: files of this kind are not read ({', '.join(READERS)} are)")
    try:
        array = np.asarray(read(file), dtype=np.float64)
    except CloudFileError:
        raise
    except OSError as error:
        raise CloudFileError(f"{file}: {error.strerror or error}") from None
    except Exception as error:  # each library has errors of its own for a damaged file
        raise CloudFileError(f"{file}: cannot be read ({type(error).__name__}: {error})") from error
    if array.ndim not in (2, 3) or array.shape[-1] < 3 or 0 in array.shape:
        raise CloudFileError(f"{file}: holds an array of shape {array.shape}, not points (N, 3) or clouds (B, N, 3)")
    array = np.ascontiguousarray(array[..., :3])
    if not np.isfinite(array).all():
        raise CloudFileError(f"{file}: {int((~np.isfinite(array)).any(-1).sum())} points hold NaN or Inf")
    return [array] if array.ndim == 2 else list(array)


def _npy(file: Path) -> Any:
    return _load(file)


def _npz(file: Path) -> Any:
    with _load(file) as archive:
        return archive[_key(file, list(archive.files))]


def _load(file: Path) -> Any:
    try:
        return np.load(file, allow_pickle=False)
    except ValueError:  # its own message advises to unpickle whatever this is
        raise CloudFileError(f"{file}: is no NumPy file, or holds Python objects, which are never unpickled") from None


def _h5(file: Path) -> Any:
    try:
        import h5py
    except ImportError:
        raise CloudFileError(f"{file}: reading it needs h5py: pip install h5py") from None
    with h5py.File(file, "r") as archive:
        names = [name for name, item in archive.items() if isinstance(item, h5py.Dataset)]
        return archive[_key(file, names)][()]


def _key(file: Path, names: list[str]) -> str:
    for key in [*KEYS, *(names if len(names) == 1 else [])]:
        if key in names:
            return key
    raise CloudFileError(f"{file}: holds {', '.join(names) or 'no arrays'}; none is called {', '.join(KEYS)}")


def _pcd_file(file: Path) -> Any:
    with file.open("rb") as stream:
        return _pcd.read(stream, file.name)


def _ply_file(file: Path) -> Any:
    with file.open("rb") as stream:
        return _ply.read(stream, file.name)


def _text(file: Path) -> Any:
    """Rows of numbers separated by blanks, tabs, commas or semicolons; # begins a comment."""
    text = file.read_text(encoding="utf-8", errors="replace").replace(",", " ").replace(";", " ")
    rows = [row.split("#")[0] for row in text.splitlines()]
    return np.loadtxt([row for row in rows if row.strip()], ndmin=2)


READERS: dict[str, Callable[[Path], Any]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".pcd": _pcd_file,
    ".ply": _ply_file,
    ".xyz": _text,
    ".txt": _text,
    ".pts": _text,
    ".h5": _h5,
    ".hdf5": _h5,
}
