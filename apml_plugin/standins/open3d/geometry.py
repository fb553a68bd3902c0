"""Stand-in for ``open3d.geometry``: the point cloud and its distance to another."""

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

    def __repr__(self) -> str:
        return f"PointCloud with {len(self._points)} points."


__getattr__ = absent(
    "open3d.geometry",
    "Install the real one: pip install open3d",
)
