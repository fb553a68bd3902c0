"""Stand-in for ``open3d.geometry``: the point cloud, its distance to another, and its box."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from apml_plugin.standins.absent import absent

from .utility import Vector3dVector


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

    def get_half_extent(self) -> np.ndarray:
        return self.get_extent() / 2

    def get_max_extent(self) -> float:
        return float(self.get_extent().max())

    def volume(self) -> float:
        return float(self.get_extent().prod())


__getattr__ = absent("open3d.geometry", "Install the real one: pip install open3d")
