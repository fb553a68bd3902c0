"""Pure-PyTorch stand-ins for what hosts import and what often did not compile or install.

A file or package here carries the name its host imports. Nothing here is used by default: ``apml run`` puts a
stand-in in place of a module that is not there (:mod:`apml_plugin.launch.probe` says when that is).
This file imports nothing of ours: it is read at the start of every interpreter of a run.
"""

from __future__ import annotations

from typing import NamedTuple


class StandIn(NamedTuple):
    """What is to be known of a stand-in."""

    needs: dict[str, tuple[str, ...]]
    """The real modules and attributes that must be there for the real one to be used: a source folder that happens
    to be called ``emd`` imports as an empty namespace package."""
    kind: str = "pure PyTorch stand-in, slower than the real one"
    """What the announcement says of it."""
    cuda: bool = False
    """The real one is compiled for CUDA, and of no use where there is no CUDA device."""


def _compiled(name: str, *attributes: str) -> StandIn:
    return StandIn({name: attributes}, cuda=True)


_FEW = "stand-in with the few names that these hosts use"

STANDINS = {
    **{name: _compiled(name, "forward", "backward") for name in ("chamfer", "chamfer_3D", "expansion_penalty")},
    "emd": StandIn(
        {"emd": ("forward", "backward")},
        "stand-in that uses every target once: exact up to 1,024 points, within 2 % beyond; the real one may "
        "give 10 % less",
        cuda=True,
    ),
    "gridding": _compiled("gridding", "forward", "backward", "rev_forward", "rev_backward"),
    "gridding_distance": _compiled("gridding_distance", "forward", "backward"),
    "cubic_feature_sampling": _compiled("cubic_feature_sampling", "forward", "backward"),
    "knn_cuda": _compiled("knn_cuda", "KNN"),
    "pointnet2_ops": _compiled(
        "pointnet2_ops.pointnet2_utils", "furthest_point_sample", "gather_operation", "grouping_operation"
    ),
    "pointnet2_cuda": _compiled("pointnet2_cuda", "furthest_point_sampling_wrapper", "gather_points_wrapper"),
    "pointops_cuda": _compiled("pointops_cuda", "furthestsampling_cuda", "knnquery_cuda"),
    "fps_cuda": _compiled("fps_cuda", "fps"),
    "mm3d_pn2": _compiled("mm3d_pn2", "furthest_point_sample", "gather_points", "grouping_operation"),
    "chamfer_dist": StandIn({"chamfer_dist": ("ChamferDistanceL1", "ChamferDistanceL2")}),
    "pytorch3d": StandIn({"pytorch3d.loss": ("chamfer_distance",), "pytorch3d.ops": ("knn_points",)}, _FEW),
    "timm": StandIn(
        {"timm.models.layers": ("DropPath", "trunc_normal_"), "timm.scheduler": ("CosineLRScheduler",)}, _FEW
    ),
    "open3d": StandIn({"open3d": ("io", "geometry", "utility")}, _FEW),
    "torchvision": StandIn({"torchvision.transforms": ("Compose",)}, "stand-in with transforms.Compose alone"),
    "tensorboardX": StandIn(
        {"tensorboardX": ("SummaryWriter",)},
        "stand-in, writes through torch.utils.tensorboard, and nothing at all without tensorboard",
    ),
}
"""The stand-ins by name, in the order in which the real ones are looked for."""

PROBES = {name: standin.needs for name, standin in STANDINS.items()}
"""Stand-in -> what :attr:`StandIn.needs` says."""

JUST_IN_TIME = ("chamfer_3D",)
"""Hosts compile these when they do not import. Where that can work, the stand-in waits until it has failed."""
