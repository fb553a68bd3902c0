"""Stand-in for the functions on point clouds of ``pytorch3d``, which are in :mod:`apml_plugin.compat.pytorch3d`."""

from apml_plugin.compat.pytorch3d import *  # noqa: F403
