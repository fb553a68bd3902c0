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


def other_models() -> None:
    """What LIDARLearn's sixty models import and the trained ones do not: any name of these is an empty class."""
    names = ("addict", "clip", "lightly", "torch_cluster", "torch_geometric")

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
