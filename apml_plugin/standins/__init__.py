"""Pure-PyTorch stand-ins for modules that hosts import and that often did not compile or install.

To add one: a file in this folder and an entry in :data:`STANDINS`. ``apml run`` imports a stand-in where the real
module is missing (:mod:`apml_plugin.launch.probe` finds out); nothing else uses them.
Standard library only: every interpreter of a run reads this file when it starts.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NamedTuple


class StandIn(NamedTuple):
    """An entry of the table."""

    file: str
    """The file in this folder, without ``.py``. Several small modules may share one; each import runs it anew."""
    needs: dict[str, tuple[str, ...]]
    """Modules and attributes that the real one must have to be used: a folder of sources that happens to be called
    ``emd`` imports as an empty namespace package."""
    submodules: tuple[str, ...] = ()
    """Names of the package's modules, all of which are the one module of the stand-in."""
    names: Mapping[str, str] = {}
    """Name in the module -> name in the file, which several modules share. It replaces what the file has there."""
    kind: str = "pure PyTorch stand-in, slower than the real one"
    """Said when it is imported."""
    remedy: str = "Compile the real one: see the host's README"
    """Said when a name is asked for that it does not have."""
    cuda: bool = False
    """The real one is compiled for CUDA, and of no use without a CUDA device."""


def _compiled(name: str, *attributes: str, file: str = "", **names: str) -> StandIn:
    return StandIn(file or name, {name: attributes}, names=names, cuda=True)


_FEW = "stand-in with the few names that these hosts use"
_TIMM = "layers.drop layers.mlp layers.attention layers.weight_init models.layers models.vision_transformer"
_PYTORCH3D = "loss.chamfer ops.knn ops.ball_query ops.sample_farthest_points ops.points_normals"

STANDINS = {
    "chamfer": _compiled("chamfer", "forward", "backward"),
    "chamfer_3D": _compiled(
        "chamfer_3D", "forward", "backward", file="chamfer", forward="forward_into", backward="backward_into"
    ),
    "chamfer_dist": StandIn(
        "chamfer",
        {"chamfer_dist": ("ChamferDistanceL1", "ChamferDistanceL2")},
        remedy="Copy it from the host's extensions/chamfer_dist, or install it from there",
    ),
    "expansion_penalty": _compiled("expansion_penalty", "forward", "backward"),
    "emd": StandIn(
        "emd",
        {"emd": ("forward", "backward")},
        kind="stand-in that uses every target once: exact up to 1,024 points, within 2 % beyond; the real one may "
        "give 10 % less",
        cuda=True,
    ),
    "gridding": _compiled("gridding", "forward", "backward", "rev_forward", "rev_backward"),
    "gridding_distance": _compiled(
        "gridding_distance", "forward", "backward", file="gridding", forward="distance_forward"
    ),
    "cubic_feature_sampling": _compiled("cubic_feature_sampling", "forward", "backward"),
    "knn_cuda": _compiled("knn_cuda", "KNN", file="neighbours"),
    "pointnet2_ops": StandIn(
        "pointnet2_ops/__init__",
        {"pointnet2_ops.pointnet2_utils": ("furthest_point_sample", "gather_operation", "grouping_operation")},
        ("pointnet2_utils", "pointnet2_modules"),
        remedy="Install the real one: https://github.com/erikwijmans/Pointnet2_PyTorch (needs a CUDA compiler)",
        cuda=True,
    ),
    "pointnet2_cuda": _compiled(
        "pointnet2_cuda", "furthest_point_sampling_wrapper", "gather_points_wrapper", file="neighbours"
    ),
    "pointops_cuda": _compiled("pointops_cuda", "furthestsampling_cuda", "knnquery_cuda", file="neighbours"),
    "fps_cuda": _compiled("fps_cuda", "fps", file="neighbours"),
    "mm3d_pn2": _compiled(
        "mm3d_pn2", "furthest_point_sample", "gather_points", "grouping_operation", file="neighbours"
    ),
    "pytorch3d": StandIn(
        "pytorch3d",
        {"pytorch3d.loss": ("chamfer_distance",), "pytorch3d.ops": ("knn_points",)},
        ("loss", "ops", *_PYTORCH3D.split()),
        kind=_FEW,
        remedy="Install the real one: https://github.com/facebookresearch/pytorch3d",
    ),
    "timm": StandIn(
        "timm",
        {"timm.models.layers": ("DropPath", "trunc_normal_"), "timm.scheduler": ("CosineLRScheduler",)},
        ("layers", "models", "scheduler", "scheduler.cosine_lr", *_TIMM.split()),
        kind=_FEW,
        remedy="It has DropPath, trunc_normal_, Mlp, Attention and CosineLRScheduler. "
        "Install the real one: pip install timm",
    ),
    "open3d": StandIn(
        "open3d",
        {"open3d": ("io", "geometry", "utility")},
        ("io", "geometry", "utility"),
        kind=_FEW,
        remedy="It has io.read_point_cloud, io.write_point_cloud, geometry.PointCloud and utility.Vector3dVector. "
        "Install the real one: pip install open3d",
    ),
    "torchvision": StandIn(
        "torchvision",
        {"torchvision.transforms": ("Compose",)},
        ("transforms",),
        kind="stand-in with transforms.Compose alone",
        remedy="It has transforms.Compose. Install the real one: pip install torchvision",
    ),
    "tensorboardX": StandIn(
        "tensorboardX",
        {"tensorboardX": ("SummaryWriter",)},
        kind="stand-in, writes through torch.utils.tensorboard, and nothing at all without tensorboard",
        remedy="Install the real one: pip install tensorboardX",
    ),
}
"""Name of the real module -> its stand-in, in the order in which the real ones are looked for."""

JUST_IN_TIME = ("chamfer_3D",)
"""Hosts compile these when they do not import. Where that can work, the stand-in waits until it has failed."""


def spec_of(name: str) -> ModuleSpec:
    """The spec of the stand-in for ``name``, under that name. :func:`complete` is for the module, once it has run."""
    file = os.path.join(os.path.dirname(os.path.abspath(__file__)), *STANDINS[name].file.split("/")) + ".py"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    if STANDINS[name].submodules:  # a package; a folder of its own holds what is imported as any module of a package
        spec.submodule_search_locations = [os.path.dirname(file)] if file.endswith("__init__.py") else []
    return spec


def complete(module: ModuleType) -> None:
    """Gives the module of a stand-in its names and submodules, and an error for what it does not have."""
    name = module.__name__
    standin = STANDINS[name]

    def __getattr__(attribute: str) -> Any:
        if attribute.startswith("__"):  # asked for by Python itself, which expects no advice
            raise AttributeError(attribute)
        raise AttributeError(f"{name}.{attribute} is not in the stand-in for {name}. {standin.remedy}")

    renamed = {new: getattr(module, old) for new, old in standin.names.items()}
    module.__dict__.update(renamed, __version__="0.0.0+apml.standin", __getattr__=__getattr__)
    for path in standin.submodules:
        sys.modules[f"{name}.{path}"] = module
        # A function of that name stays: pytorch3d.ops.ball_query is both.
        vars(module).setdefault(path.rpartition(".")[2], module)
