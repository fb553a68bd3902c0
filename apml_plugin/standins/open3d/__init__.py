"""Stand-in for the few names of ``open3d`` that completion hosts use: point clouds, their files, distances."""

from apml_plugin.standins.absent import absent

from . import geometry, io, utility

__all__ = ["geometry", "io", "utility"]
__version__ = "0.0.0+apml.standin"


__getattr__ = absent(
    "open3d",
    "It has io.read_point_cloud, io.write_point_cloud, geometry.PointCloud and utility.Vector3dVector. "
    "Install the real one: pip install open3d",
)
