"""Stand-in for the few names of ``open3d`` that completion hosts use: point clouds, their files, distances, boxes.

Those of ``open3d.utility``, ``open3d.geometry`` and ``open3d.io``, in that order.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from apml_plugin.errors import CloudFileError
from apml_plugin.files import clouds, ply_pcd

_FORMATS = {".pcd": ply_pcd.dump_pcd, ".ply": ply_pcd.dump_ply}


class Vector3dVector(np.ndarray):
    """A copy of (N, 3) numbers as float64; an ndarray, so NumPy takes it as it is.

    Raises:
        RuntimeError: any other shape (the real one raises that type).
    """

    def __new__(cls, data: Any = ()) -> Vector3dVector:
        array = np.array(data, dtype=np.float64)
        if array.size == 0:
            array = array.reshape(0, 3)
        if array.ndim != 2 or array.shape[1] != 3:
            raise RuntimeError(f"Vector3dVector: expected an array (N, 3), got shape {array.shape}")
        return array.view(cls)


class PointCloud:
    """Points (N, 3) as float64 under ``points``; nothing else (no colours, no normals)."""

    def __init__(self, points: Any = ()) -> None:
        self._points = Vector3dVector(points.points if isinstance(points, PointCloud) else points)

    @property
    def points(self) -> Vector3dVector:
        return self._points

    @points.setter
    def points(self, value: Any) -> None:
        self._points = Vector3dVector(value)

    def has_points(self) -> bool:
        return len(self._points) > 0

    def is_empty(self) -> bool:
        return len(self._points) == 0

    def compute_point_cloud_distance(self, target: PointCloud) -> np.ndarray:
        """Euclidean distance (N,) from each point to the nearest point of ``target``, float64.

        Raises:
            RuntimeError: ``target`` has no points.
        """
        if target.is_empty():
            raise RuntimeError("compute_point_cloud_distance: the target cloud has no points")
        return cKDTree(np.asarray(target.points)).query(np.asarray(self._points), workers=-1)[0]

    def transform(self, transformation: Any) -> PointCloud:
        """Moves the points by a homogeneous matrix (4, 4), in place, and returns the cloud itself.

        Raises:
            RuntimeError: a matrix of another shape.
        """
        matrix = np.asarray(transformation, dtype=np.float64)
        if matrix.shape != (4, 4):
            raise RuntimeError(f"transform: expected a matrix (4, 4), got shape {matrix.shape}")
        moved = np.asarray(self._points) @ matrix[:, :3].T + matrix[:, 3]
        self.points = moved[:, :3] / moved[:, 3:]
        return self

    def get_min_bound(self) -> np.ndarray:
        """Smallest coordinates (3,); zeros without points."""
        return np.asarray(self._points).min(axis=0) if self.has_points() else np.zeros(3)

    def get_max_bound(self) -> np.ndarray:
        """Largest coordinates (3,); zeros without points."""
        return np.asarray(self._points).max(axis=0) if self.has_points() else np.zeros(3)

    def get_center(self) -> np.ndarray:
        """Mean of the points (3,); zeros without points."""
        return np.asarray(self._points).mean(axis=0) if self.has_points() else np.zeros(3)

    def get_axis_aligned_bounding_box(self) -> AxisAlignedBoundingBox:
        return AxisAlignedBoundingBox(self.get_min_bound(), self.get_max_bound())

    def __repr__(self) -> str:
        return f"PointCloud with {len(self._points)} points."


class AxisAlignedBoundingBox:
    """A box from ``min_bound`` to ``max_bound``, (3,) each."""

    def __init__(self, min_bound: Any = (0, 0, 0), max_bound: Any = (0, 0, 0)) -> None:
        self.min_bound = np.array(min_bound, dtype=np.float64)
        self.max_bound = np.array(max_bound, dtype=np.float64)

    def get_min_bound(self) -> np.ndarray:
        return self.min_bound

    def get_max_bound(self) -> np.ndarray:
        return self.max_bound

    def get_center(self) -> np.ndarray:
        return (self.min_bound + self.max_bound) / 2

    def get_extent(self) -> np.ndarray:
        return self.max_bound - self.min_bound


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
