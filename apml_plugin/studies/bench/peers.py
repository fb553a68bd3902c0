"""What ours is held against: one record each, used only where it can be imported.

``load`` imports the peer and returns a function of pred and gt; it raises ImportError where the peer is not there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from apml_plugin.functional import apml_loss


@dataclass(frozen=True)
class Peer:
    """A peer by the name in the tables; the other fields are those of ``contestants.Contestant``."""

    name: str
    load: Callable[[], Callable[[Tensor, Tensor], Any]]
    devices: tuple[str, ...] = ("cpu", "cuda")
    growth: float = 2.0
    gradient: bool = True
    note: str = ""

    def problem(self, device: str) -> str | None:
        """Why it cannot be timed on this device, or None."""
        if device not in self.devices:
            return f"runs on {' and '.join(self.devices)} only"
        try:
            self.load()
        except Exception as error:  # a compiled module may fail to import in any way it likes
            return f"not importable: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        return None


def _ckdtree() -> Callable[[Tensor, Tensor], Any]:
    ckdtree = import_module("scipy.spatial").cKDTree

    def nearest_both_ways(pred: Tensor, gt: Tensor) -> None:
        workers = torch.get_num_threads()
        for x, y in zip(pred.numpy(), gt.numpy(), strict=True):
            ckdtree(y).query(x, workers=workers)
            ckdtree(x).query(y, workers=workers)

    return nearest_both_ways


def _cdist() -> Callable[[Tensor, Tensor], Tensor]:
    def chamfer(pred: Tensor, gt: Tensor) -> Tensor:
        distance = torch.cdist(pred, gt)
        return (distance.amin(dim=2).mean() + distance.amin(dim=1).mean()) / 2

    return chamfer


def _dense() -> Callable[[Tensor, Tensor], Tensor]:
    return functools.partial(apml_loss, backend="dense")


def _geomloss() -> Callable[[Tensor, Tensor], Tensor]:
    samples_loss = import_module("geomloss").SamplesLoss
    try:
        import_module("pykeops")
        backend = "auto"
    except Exception:  # without it, geomloss's own choice for large clouds stops with an error
        backend = "tensorized"
    loss = samples_loss("sinkhorn", backend=backend)
    return lambda pred, gt: loss(pred, gt).mean()


def _pytorch3d() -> Callable[[Tensor, Tensor], Tensor]:
    chamfer = import_module("pytorch3d.loss").chamfer_distance
    return lambda pred, gt: chamfer(pred, gt)[0]


def _host_chamfer() -> Callable[[Tensor, Tensor], Tensor]:
    extension = import_module("chamfer")

    class Distances(torch.autograd.Function):
        """Squared distances to the nearest point, both ways, through the extension's own two functions."""

        @staticmethod
        def forward(ctx: Any, pred: Tensor, gt: Tensor) -> tuple[Tensor, Tensor]:
            there, back, there_index, back_index = extension.forward(pred, gt)
            ctx.save_for_backward(pred, gt, there_index, back_index)
            return there, back

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Any:
            there, back = (grad.contiguous() for grad in grads)
            return extension.backward(*ctx.saved_tensors, there, back)

    def chamfer_l2(pred: Tensor, gt: Tensor) -> Tensor:
        there, back = Distances.apply(pred, gt)  # type: ignore[no-untyped-call]
        mean: Tensor = there.mean() + back.mean()
        return mean

    return chamfer_l2


CKDTREE = Peer(
    "cKDTree",
    _ckdtree,
    devices=("cpu",),
    growth=1.0,
    gradient=False,
    note="SciPy, nearest neighbours both ways, trees built each time, default options, workers = threads: "
    "a search alone, no loss and no gradient",
)
CDIST = Peer("cdist Chamfer", _cdist, note="torch.cdist, Chamfer-L1")
DENSE = Peer("APML dense", _dense, note="our own dense backend: the definition")
GEOMLOSS = Peer(
    "geomloss", _geomloss, note="SamplesLoss('sinkhorn') with its defaults; backend 'tensorized' without pykeops"
)
PYTORCH3D = Peer("pytorch3d", _pytorch3d, note="pytorch3d.loss.chamfer_distance, Chamfer-L2")
HOST_CHAMFER = Peer(
    "host chamfer", _host_chamfer, devices=("cuda",), note="the extension `chamfer` of PoinTr-style hosts, Chamfer-L2"
)

PEERS = (CKDTREE, CDIST, DENSE, GEOMLOSS, PYTORCH3D, HOST_CHAMFER)
