"""Stand-in for the few names of ``open3d`` that completion hosts use: point clouds, their files, distances."""

from typing import Any

from . import geometry, io, utility

__all__ = ["geometry", "io", "utility"]
__version__ = "0.0.0+apml.standin"


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    raise AttributeError(
        f"open3d.{name} is not in the stand-in for open3d (it has io.read_point_cloud, io.write_point_cloud, "
        "geometry.PointCloud and utility.Vector3dVector). Install the real one: pip install open3d"
    )
