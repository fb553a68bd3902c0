"""Stand-in for the functions on point clouds of ``pytorch3d``, which are in :mod:`apml_plugin.compat.pytorch3d`."""

from apml_plugin.compat import pytorch3d as _functions
from apml_plugin.compat.pytorch3d import chamfer_distance, estimate_pointcloud_normals, knn_points
from apml_plugin.standins.absent import absent, also

__all__ = ["chamfer_distance", "estimate_pointcloud_normals", "knn_points"]
__version__ = "0.0.0+apml.standin"

__getattr__ = absent("pytorch3d", "Install the real one: https://github.com/facebookresearch/pytorch3d")
also(_functions, __name__, "loss", "loss.chamfer", "ops", "ops.knn", "ops.ball_query", "ops.sample_farthest_points")
also(_functions, __name__, "ops.points_normals")
