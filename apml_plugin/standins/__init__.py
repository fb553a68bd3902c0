"""Pure-PyTorch stand-ins for what hosts import and what often did not compile or install.

A file or package here carries the name its host imports. Nothing here is used by default: ``apml run`` puts a
stand-in in place of a module whose real one does not import, and only then (:mod:`apml_plugin.launch`).
This file imports nothing: it is read at the start of every interpreter of a run.
"""

from __future__ import annotations

PROBES: dict[str, dict[str, tuple[str, ...]]] = {
    "chamfer": {"chamfer": ("forward", "backward")},
    "chamfer_3D": {"chamfer_3D": ("forward", "backward")},
    "emd": {"emd": ("forward", "backward")},
    "expansion_penalty": {"expansion_penalty": ("forward", "backward")},
    "gridding": {"gridding": ("forward", "backward", "rev_forward", "rev_backward")},
    "gridding_distance": {"gridding_distance": ("forward", "backward")},
    "cubic_feature_sampling": {"cubic_feature_sampling": ("forward", "backward")},
    "knn_cuda": {"knn_cuda": ("KNN",)},
    "pointnet2_ops": {
        "pointnet2_ops.pointnet2_utils": ("furthest_point_sample", "gather_operation", "grouping_operation")
    },
    "timm": {"timm.models.layers": ("DropPath", "trunc_normal_"), "timm.scheduler": ("CosineLRScheduler",)},
    "open3d": {"open3d": ("io", "geometry", "utility")},
    "torchvision": {"torchvision.transforms": ("Compose",)},
    "tensorboardX": {"tensorboardX": ("SummaryWriter",)},
}
"""Stand-in -> the real modules and attributes that must be there for the real one to be used.

The attributes matter: a source folder that happens to be called ``emd`` imports as an empty namespace package.
"""

PACKAGES = ("pointnet2_ops", "timm", "open3d", "torchvision")
"""The stand-ins that are packages; the others are single modules."""

JUST_IN_TIME = ("chamfer_3D",)
"""Hosts compile these when they do not import. Where that can work, the stand-in waits until it has failed."""

KIND = "pure PyTorch stand-in, slower than the real one"
"""What the announcement says of a stand-in that is not in KINDS."""

KINDS = {
    "emd": "stand-in that uses every target once: exact up to 1,024 points, within some 3 % beyond; the real one may "
    "give 10 % less",
    "timm": "stand-in with the few names that these hosts use",
    "open3d": "stand-in with the few names that these hosts use",
    "torchvision": "stand-in with transforms.Compose alone",
    "tensorboardX": "stand-in, writes through torch.utils.tensorboard, and nothing at all without tensorboard",
}
"""What the announcement says of the others."""
