"""Sinkhorn divergences between densities on grids: pictures and volumes.

GeomLoss announces ImagesLoss and VolumesLoss and has neither; its grid function needs squares of a power of two and
KeOps, and ignores ``axes``. These take any rectangle and compute softmins one axis after the other, so that memory is
that of a few pictures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from apml_plugin.arguments import between, flag, number, one_of, optional_positive
from apml_plugin.eager import eager
from apml_plugin.errors import LossArgumentError, LossValueError
from apml_plugin.losses.base import PointLoss, declare
from apml_plugin.losses.geom.base import same_mass
from apml_plugin.losses.geom.sinkhorn import Masses, Potentials, Side, divergence, settle
from apml_plugin.losses.geom.softmin import log_weights, order, temperatures

ENTRIES = 2**22
"""Entries of the largest intermediate tensor."""


class _GridSinkhorn(PointLoss):
    grids: ClassVar[str]
    axes_names: ClassVar[str]

    def __init__(
        self,
        p: int = 2,
        blur: float | None = None,
        reach: float | None = None,
        axes: Sequence[Sequence[float]] | None = None,
        scaling: float = 0.5,
        debias: bool = True,
        potentials: bool = False,
        normalize: bool = False,
        tolerance: float | None = None,
        reduction: str = "mean",
        check_finite: bool = True,
    ) -> None:
        super().__init__()
        self.p = order(p)
        self.blur = optional_positive("blur", blur)
        self.reach = optional_positive("reach", reach)
        self.axes = self._check_axes(axes)
        self.scaling = between("scaling", scaling, 0, 1)
        self.debias = flag("debias", debias)
        self.potentials = flag("potentials", potentials)
        self.normalize = flag("normalize", normalize)
        self.tolerance = optional_positive("tolerance", tolerance)
        self.reduction = one_of("reduction", reduction, ("mean", "none"))
        self.check_finite = flag("check_finite", check_finite)

    @property
    def dimension(self) -> int:
        return len(self.axes_names.split(", "))

    def forward(self, pred: Tensor, gt: Tensor, pred_lengths: Any = None, gt_lengths: Any = None) -> Any:
        """The loss of two densities of the same shape; each channel is a density.

        Returns:
            0-dim, (B,) with the channels' sum for ``reduction="none"``, or with ``potentials=True`` two tensors
            of the densities' shape.
        """
        if pred_lengths is not None or gt_lengths is not None:
            raise LossArgumentError(f"{type(self).__name__} compares {self.grids}, which have no lengths")
        return _grids(self, pred, gt)

    def _check_axes(self, axes: Any) -> tuple[tuple[float, float], ...] | None:
        if axes is None:
            return None
        name = type(self).__name__
        wanted = f"axes={axes!r} must be {self.dimension} pairs of numbers (low, high), for {self.axes_names}"
        try:
            pairs = tuple((number("axes", low), number("axes", high)) for low, high in axes)
        except (TypeError, ValueError):
            raise LossArgumentError(f"{name}: {wanted}") from None
        if len(pairs) != self.dimension or any(not low < high < math.inf for low, high in pairs):
            raise LossValueError(f"{name}: {wanted}, low < high")
        return pairs

    def _check(self, name: str, grid: Any) -> None:
        shape = f"(B, C, {self.axes_names})"
        loss = type(self).__name__
        if not isinstance(grid, Tensor) or not grid.is_floating_point():
            got = grid.dtype if isinstance(grid, Tensor) else type(grid).__name__
            raise LossArgumentError(f"{loss}: {name} must be a floating-point tensor {shape}, got {got}")
        if grid.dim() != self.dimension + 2:
            raise LossValueError(
                f"{loss} compares {self.grids}: {name} must have shape {shape}, got {tuple(grid.shape)}; "
                "for point clouds (B, N, D) use Sinkhorn"
            )
        if 0 in grid.shape[1:]:
            raise LossValueError(f"{loss}: {name} of shape {tuple(grid.shape)} is empty")
        if self.check_finite and not bool(torch.isfinite(grid.detach()).all()):
            raise LossValueError(f"{loss}: {name} holds NaN or Inf (check_finite=False skips this check)")
        if bool((grid.detach() < 0).any()):
            raise LossValueError(f"{loss}: {name} is a density and must not be negative, got {float(grid.min()):g}")


@eager()
def _grids(loss: _GridSinkhorn, pred: Tensor, gt: Tensor) -> Any:
    loss._check("pred", pred)
    loss._check("gt", gt)
    if pred.shape != gt.shape or pred.device != gt.device:
        raise LossValueError(
            f"{type(loss).__name__}: pred and gt must have one shape and device, got {tuple(pred.shape)} on "
            f"{pred.device} and {tuple(gt.shape)} on {gt.device}"
        )
    dtype = torch.promote_types(torch.promote_types(pred.dtype, gt.dtype), torch.float32)
    space = tuple(range(2, pred.dim()))
    with torch.autocast(pred.device.type, enabled=False):
        a, b = pred.to(dtype), gt.to(dtype)
        for name, grid in (("pred", a), ("gt", b)):
            if bool((grid.detach().sum(dim=space) <= 0).any()):
                raise LossValueError(f"{type(loss).__name__}: a channel of {name} is 0 everywhere; it needs mass")
        if loss.normalize:
            a, b = a / a.sum(dim=space, keepdim=True), b / b.sum(dim=space, keepdim=True)
        elif loss.reach is None:
            for k, (u, v) in enumerate(zip(a.detach().flatten(0, 1), b.detach().flatten(0, 1), strict=True)):
                same_mass(k // a.shape[1], u, v, "normalize=True does it")
        return _divergence(loss, a, b)


def _divergence(loss: _GridSinkhorn, a: Tensor, b: Tensor) -> Any:
    axes = loss.axes or ((0.0, 1.0),) * loss.dimension
    sizes = a.shape[2:]
    steps = [(high - low) / n for (low, high), n in zip(axes, sizes, strict=True)]
    blur = loss.blur or min(steps)
    diameter = math.hypot(*(high - low for low, high in axes))
    eps_list = temperatures(loss.p, diameter, blur, loss.scaling)
    masses = Masses(blur**loss.p, None if loss.reach is None else loss.reach**loss.p)
    costs = [_axis_cost(n, step, loss.p, a) for n, step in zip(sizes, steps, strict=True)]

    def reduce(eps: float, h: Tensor) -> Tensor:
        return softmin_grid(costs, eps, h)

    with torch.no_grad():
        a_log, b_log = log_weights(a), log_weights(b)
        sides: list[Side] = [(reduce, b_log), (reduce, a_log)]
        if loss.debias:
            sides += [(reduce, a_log), (reduce, b_log)]
        last, _ = settle(sides, eps_list, masses.rho, loss.tolerance)
    dual = Potentials(last[0], last[1], *(last[2:] if loss.debias else (None, None)))
    if loss.potentials:
        return dual.debiased()
    values = divergence(a, b, dual, masses, dims=tuple(range(2, a.dim()))).sum(dim=1)
    return values if loss.reduction == "none" else values.sum() / max(len(values), 1)


def _axis_cost(n: int, step: float, p: int, like: Tensor) -> Tensor:
    """(n, n): what one axis adds to the cost between the centres of cells."""
    at = torch.arange(n, dtype=like.dtype, device=like.device) * step
    gap = (at[:, None] - at).abs()
    return gap if p == 1 else gap.square() / 2


def softmin_grid(costs: Sequence[Tensor], eps: float, h: Tensor) -> Tensor:
    """``-eps log sum_j exp(h_j - C_ij / eps)`` over a grid whose cost is a sum over its axes, one axis at a time."""
    for axis, cost in enumerate(costs, start=2):
        lines = h.transpose(axis, -1)
        flat = lines.reshape(-1, len(cost))
        step = max(1, ENTRIES // cost.numel())
        parts = [(flat[i : i + step, None] - cost / eps).logsumexp(dim=2) for i in range(0, len(flat), step)]
        flat = torch.cat(parts) if parts else flat
        h = flat.reshape(lines.shape).transpose(axis, -1)
    return -eps * h


@declare(takes="two pictures")
class ImagesSinkhorn(_GridSinkhorn):
    """Sinkhorn divergence between pictures (B, C, H, W), each channel a density on a grid; differentiable in them.

    Args:
        p: 2 (cost d^2/2) or 1 (city-block distance, as in GeomLoss).
        blur: the temperature is ``blur^p``; None: the smallest side of a pixel.
        reach: masses need not match: mass is moved about this far at most. None: they must match.
        axes: (low, high) of each axis; by default [0, 1) each. Pixels are evenly spaced from low, high left out.
        scaling: ratio of successive scales of the schedule, in (0, 1); 0.5 is coarse.
        debias: subtract what each picture costs with itself.
        potentials: return the dual potentials, two tensors of the pictures' shape.
        normalize: divide each channel by its sum first.
        tolerance: go on at the blur until no potential changes by more than this share of the temperature.
        reduction: ``"mean"`` over the batch or ``"none"`` for (B,); channels are summed.
        check_finite: raise an error for NaN and Inf.
    """

    needs = "two pictures (B, C, H, W), densities on a grid"
    grids = "pictures"
    axes_names = "H, W"


@declare(takes="two volumes")
class VolumesSinkhorn(_GridSinkhorn):
    """Sinkhorn divergence between volumes (B, C, X, Y, Z), each channel a density on a grid; differentiable in them.

    Args: as :class:`ImagesSinkhorn`, with three axes.
    """

    needs = "two volumes (B, C, X, Y, Z), densities on a grid"
    grids = "volumes"
    axes_names = "X, Y, Z"
