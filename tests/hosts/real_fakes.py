"""What a real host imports, what its loss does not depend on, and what neither pip nor a stand-in can give here.

Written for the tests, executed in the host's process before its script (`Fork.fakes`); nothing of the product uses it.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from typing import Any

import torch
from torch import nn


def _module(name: str, **names: Any) -> None:
    module = types.ModuleType(name)
    module.__dict__.update(names)
    module.__path__ = []  # type: ignore[attr-defined]
    sys.modules[name] = module


def mmcv() -> None:
    """OpenMMLab's mmcv below 2: imported by MVP_Benchmark's mm3d_pn2 and not used by its completion task."""
    names = ("RoIAlign", "SigmoidFocalLoss", "get_compiler_version", "get_compiling_cuda_version", "nms")
    registry = types.SimpleNamespace(register_module=lambda *args, **kwargs: lambda cls: cls)
    _module("mmcv")
    _module("mmcv.ops", **dict.fromkeys((*names, "roi_align", "sigmoid_focal_loss")))
    _module("mmcv.runner", force_fp32=lambda *args, **kwargs: lambda function: function)
    _module("mmcv.cnn", NORM_LAYERS=registry)


def mm3d_extensions() -> None:
    """The compiled parts of MVP_Benchmark's own mm3d_pn2 package, which it imports relatively, by `pointnet2_cuda`."""
    import pointnet2_cuda as kernels

    def knn(b: int, n: int, m: int, k: int, xyz: Any, new_xyz: Any, idx: Any, dist2: Any) -> None:
        distances, found = torch.cdist(new_xyz, xyz).square().topk(k, largest=False)
        idx.copy_(found)
        dist2.copy_(distances)

    def group(b: int, c: int, n: int, m: int, k: int, features: Any, idx: Any, out: Any) -> None:
        kernels.group_points_wrapper(b, c, n, m, k, features, idx, out)

    def group_back(b: int, c: int, n: int, m: int, k: int, grad_out: Any, idx: Any, grad: Any) -> None:
        kernels.group_points_grad_wrapper(b, c, n, m, k, grad_out, idx, grad)

    def ball(b: int, n: int, m: int, least: float, most: float, k: int, new_xyz: Any, xyz: Any, idx: Any) -> None:
        assert not least
        kernels.ball_query_wrapper(b, n, m, most, k, new_xyz, xyz, idx)

    more = {"group_points": {"forward": group, "backward": group_back}, "knn": {"knn_wrapper": knn}}
    more["ball_query"] = {"ball_query_wrapper": ball}
    for name in ("ball_query", "furthest_point_sample", "gather_points", "group_points", "interpolate", "knn"):
        _module(f"mm3d_pn2.ops.{name}.{name}_ext", **{**vars(kernels), **more.get(name, {})})


def other_models() -> None:
    """What LIDARLearn's sixty models import and the trained ones do not: any name of these is an empty class."""
    names = ("addict", "clip", "lightly", "torch_cluster", "torch_geometric")
    names += ("pointnet2_ops._ext", "pointnet2_ops.pointnet2_modules")

    def empty_class(name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (nn.Module,), {})

    class Finder:
        def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
            known = name in names or name.partition(".")[0] in names
            return importlib.util.spec_from_loader(name, self, is_package=True) if known else None  # type: ignore

        def create_module(self, spec: Any) -> None:
            return None

        def exec_module(self, module: Any) -> None:
            module.__getattr__ = empty_class

    sys.meta_path.append(Finder())  # type: ignore[arg-type]


def minkowski() -> None:
    """MinkowskiEngine, open3d's and KeOps' names, and LiDiff's sparse U-Net as a network of single points.

    LiDiff's own files build the fields, call the network, compute the loss and drive Lightning.
    """

    def batched_coordinates(clouds: list[torch.Tensor], dtype: torch.dtype, device: Any = None) -> torch.Tensor:
        rows = [torch.cat([torch.full((len(c), 1), float(i)), c.cpu()], 1) for i, c in enumerate(clouds)]
        return torch.cat(rows).to(dtype=dtype, device=device)

    def sparse_quantize(coordinates: Any, return_index: bool) -> tuple[Any, Any]:
        import numpy as np

        voxels, index = np.unique(np.floor(coordinates).astype(int), axis=0, return_index=True)
        return voxels, index

    class TensorField:
        def __init__(self, features: torch.Tensor, coordinates: torch.Tensor, **kwargs: Any) -> None:
            self.F, self.C = features, coordinates

    class MinkUNet(nn.Module):
        def __init__(self, in_channels: int, out_channels: int) -> None:
            super().__init__()
            hidden = nn.Linear(in_channels, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, out_channels)
            self.net = nn.Sequential(*hidden)

        def forward(self, field: TensorField) -> torch.Tensor:
            return self.net(field.F) * 0.1

    modes = types.SimpleNamespace(UNWEIGHTED_AVERAGE=0, SPEED_OPTIMIZED=0)
    utils = types.SimpleNamespace(batched_coordinates=batched_coordinates, sparse_quantize=sparse_quantize)
    kinds = {"SparseTensorQuantizationMode": modes, "MinkowskiAlgorithm": modes}
    _module("MinkowskiEngine", TensorField=TensorField, utils=utils, **kinds)
    _module("lidiff.models.minkunet", MinkUNet=MinkUNet)
    _module("hdbscan")


def lightning_of_then() -> None:
    """Names of Lightning 1.5 for LiDiff on Lightning 2, and every logged value printed."""
    import pytorch_lightning
    from pytorch_lightning import LightningModule, Trainer

    _module("pytorch_lightning.core.lightning", LightningModule=LightningModule)
    log, start = LightningModule.log, Trainer.__init__

    def printed(self: Any, name: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        print(f"LOGGED {name} {float(value):.9f}")
        return log(self, name, value, *args, **kwargs)

    def modern(self: Any, *args: Any, gpus: int = 0, resume_from_checkpoint: Any = None, **kwargs: Any) -> None:
        kwargs.update(check_val_every_n_epoch=1, limit_val_batches=1.0, accelerator="cpu", devices=1)
        start(self, *args, **kwargs, enable_progress_bar=False)

    LightningModule.log, Trainer.__init__ = printed, modern  # type: ignore[method-assign]
    pytorch_lightning.Trainer = Trainer
