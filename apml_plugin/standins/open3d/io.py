"""Stand-in for ``open3d.io``: point clouds from and to PCD and PLY files."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from apml_plugin.errors import CloudFileError
from apml_plugin.files import clouds, ply_pcd
from apml_plugin.standins.absent import absent

from .geometry import PointCloud

_FORMATS = {".pcd": ply_pcd.dump_pcd, ".ply": ply_pcd.dump_ply}


def read_point_cloud(filename: str | os.PathLike[str], **options: Any) -> PointCloud:
    """Coordinates of a PCD (ascii, binary) or PLY (ascii, binary_little_endian) file.

    Other fields of a point are skipped. ``options`` of the real function are accepted; ``remove_nan_points`` and
    ``remove_infinite_points`` are honoured.

    Raises:
        RuntimeError: the file is neither, is cut short, or is compressed; the real one would warn and give an
            empty cloud.
    """
    _format(filename)
    try:
        points = clouds.read_array(filename)
    except CloudFileError as error:
        raise RuntimeError(f"{error}. This is the stand-in for open3d; the real one: pip install open3d") from None
    if options.get("remove_nan_points"):
        points = points[~np.isnan(points).any(axis=1)]
    if options.get("remove_infinite_points"):
        points = points[~np.isinf(points).any(axis=1)]
    return PointCloud(points)


def write_point_cloud(
    filename: str | os.PathLike[str], pointcloud: PointCloud, write_ascii: bool = False, **options: Any
) -> bool:
    """Writes the coordinates: PCD in float32, PLY in float64, binary unless ``write_ascii``. Returns True."""
    content = _format(filename)(np.asarray(pointcloud.points), write_ascii)
    with open(filename, "wb") as file:
        file.write(content)
    return True


def _format(filename: str | os.PathLike[str]) -> Any:
    suffix = os.path.splitext(os.fspath(filename))[1].lower()
    if suffix not in _FORMATS:
        raise RuntimeError(
            f"{os.fspath(filename)}: the stand-in for open3d reads and writes .pcd and .ply. "
            "Install the real one for others: pip install open3d"
        )
    return _FORMATS[suffix]


__getattr__ = absent(
    "open3d.io",
    "Install the real one: pip install open3d",
)
