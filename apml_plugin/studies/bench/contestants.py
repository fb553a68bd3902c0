"""What is timed: one record for each loss of ours and each peer. A fresh process finds a record by its name."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from apml_plugin.errors import LossArgumentError, LossValueError
from apml_plugin.functional import apml_loss, chamfer_distance
from apml_plugin.matching import backends

from .timing import problem_of

DEFAULT_LOSSES = ("APML", "ChamferL1", "ChamferL2")

Call = Callable[[Tensor, Tensor], Any]


@dataclass(frozen=True)
class Contestant:
    """One thing to time.

    Attributes:
        name: in the tables, and for :func:`contestant`.
        load: imports what is needed and returns a function of pred (B, N, 3) and gt (B, M, 3). Raises ImportError
            where a peer is not installed.
        ours: ratios are ours / peer.
        growth: time grows as the number of points to this power; predicts which cases take too long.
        devices: where it runs.
        gradient: False where there is nothing to differentiate, so that only the forward call is timed.
        note: what a reader must know to read its figures.
    """

    name: str
    load: Callable[[], Call]
    ours: bool = False
    growth: float = 2.0
    devices: tuple[str, ...] = ("cpu", "cuda")
    gradient: bool = True
    note: str = ""

    @functools.cached_property
    def call(self) -> Call:
        return self.load()

    def problem(self, device: str) -> str | None:
        """Why it cannot be timed on this device, or None."""
        if device not in self.devices:
            return f"runs on {' and '.join(self.devices)} only"
        try:
            self.call  # noqa: B018
        except Exception as error:  # the import of a compiled module may fail with any error
            return f"not importable: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        return None


def _ckdtree() -> Call:
    ckdtree = import_module("scipy.spatial").cKDTree

    def nearest_both_ways(pred: Tensor, gt: Tensor) -> None:
        workers = torch.get_num_threads()
        for x, y in zip(pred.numpy(), gt.numpy(), strict=True):
            ckdtree(y).query(x, workers=workers)
            ckdtree(x).query(y, workers=workers)

    return nearest_both_ways


def _cdist() -> Call:
    def chamfer(pred: Tensor, gt: Tensor) -> Tensor:
        distance = torch.cdist(pred, gt)
        return (distance.amin(dim=2).mean() + distance.amin(dim=1).mean()) / 2

    return chamfer


def _geomloss() -> Call:
    samples_loss = import_module("geomloss").SamplesLoss
    try:
        import_module("pykeops")
        backend = "auto"
    except Exception:  # without pykeops, geomloss's automatic choice fails for large clouds
        backend = "tensorized"
    loss = samples_loss("sinkhorn", backend=backend)
    return lambda pred, gt: loss(pred, gt).mean()


def _pytorch3d() -> Call:
    chamfer = import_module("pytorch3d.loss").chamfer_distance
    return lambda pred, gt: chamfer(pred, gt)[0]


def _host_chamfer() -> Call:
    extension = import_module("chamfer")

    class Distances(torch.autograd.Function):
        """Squared distances to the nearest point, both ways, by the two functions of the extension."""

        @staticmethod
        def forward(ctx: Any, pred: Tensor, gt: Tensor) -> tuple[Tensor, Tensor]:
            to_gt, to_pred, gt_index, pred_index = extension.forward(pred, gt)
            ctx.save_for_backward(pred, gt, gt_index, pred_index)
            return to_gt, to_pred

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Any:
            return extension.backward(*ctx.saved_tensors, *(grad.contiguous() for grad in grads))

    def chamfer_l2(pred: Tensor, gt: Tensor) -> Tensor:
        to_gt, to_pred = Distances.apply(pred, gt)
        mean: Tensor = to_gt.mean() + to_pred.mean()
        return mean

    return chamfer_l2


def _apml(backend: str) -> Call:
    return functools.partial(apml_loss, backend=backend)


PEERS = (
    Contestant(
        "cKDTree", _ckdtree, growth=1.0, devices=("cpu",), gradient=False,
        note="SciPy, nearest neighbours both ways, trees built each time, default options, workers = threads: "
        "a search alone, no loss and no gradient",
    ),
    Contestant("cdist Chamfer", _cdist, note="torch.cdist, Chamfer-L1"),
    Contestant("APML dense", lambda: _apml("dense"), note="our own dense backend: the definition"),
    Contestant(
        "geomloss", _geomloss, note="SamplesLoss('sinkhorn') with its defaults; backend 'tensorized' without pykeops"
    ),
    Contestant("pytorch3d", _pytorch3d, note="pytorch3d.loss.chamfer_distance, Chamfer-L2"),
    Contestant(
        "host chamfer", _host_chamfer, devices=("cuda",),
        note="the extension `chamfer` of PoinTr-style hosts, Chamfer-L2",
    ),
)  # fmt: skip


def contestant(name: str) -> Contestant:
    """A peer by its name, or one of ours (see :func:`our`)."""
    return next((peer for peer in PEERS if peer.name == name), None) or our(name)


def our(name: str) -> Contestant:
    """One of ours: ``APML``, ``APML dense`` (any backend), or a loss as in YAML, such as ``{NAME: APML, p_min: 0.5}``.

    Raises ApmlError for an unknown loss, and for arguments it does not take.
    """
    if name == "APML":
        return Contestant(name, lambda: apml_loss, True, growth=1.0)
    if name in ("ChamferL1", "ChamferL2"):
        return Contestant(name, lambda: functools.partial(chamfer_distance, norm=name[-2:]), True, growth=1.0)
    if name.startswith("APML ") and name[5:] in backends.names():
        return Contestant(name, lambda: _apml(name[5:]), True, growth=2.0 if name == "APML dense" else 1.0)
    from apml_plugin.registry import build_loss  # needs mmengine, which the names above do not

    loss = build_loss(_config(name))
    return Contestant(name, lambda: loss, True, growth=1.0)


def auto_backend(points: int, device: str, dtype: torch.dtype) -> str:
    """The backend that APML's ``auto`` chooses for clouds of that size, or the reason why there is none."""
    cloud = torch.empty(1, 1, 3, device=device, dtype=dtype).expand(1, points, 3)
    try:
        return backends.choose("auto", cloud, cloud).name
    except Exception as error:
        return problem_of(error)


def check_runs(one: Contestant, device: str, dtype: torch.dtype) -> None:
    """Calls it once on eight points, so that what cannot work is reported before anything is timed.

    Raises ApmlError with the loss's own reason.
    """
    cloud = torch.rand(1, 8, 3, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    loss = one.call(cloud, cloud + 1)
    if not isinstance(loss, Tensor):
        raise LossValueError(f"{one.name} returned {type(loss).__name__}, not a tensor: it cannot be timed as a loss")


def _config(text: str) -> Any:
    """A loss as under ``loss:`` in a YAML."""
    if not text.lstrip().startswith(("{", "[")):
        return text
    from apml_plugin.files.yamls import load_yaml  # needs PyYAML, which measuring does not

    try:
        return load_yaml(text, below="loss")
    except ValueError as error:
        raise LossArgumentError(f"--loss {text!r} is not YAML ({error}); write {{NAME: APML, p_min: 0.5}}") from None
