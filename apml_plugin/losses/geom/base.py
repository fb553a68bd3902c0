"""What the losses between weighted clouds share: their arguments, weights, and going through a batch pair by pair."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from apml_plugin.arguments import flag, one_of
from apml_plugin.eager import eager
from apml_plugin.errors import LossArgumentError, LossValueError
from apml_plugin.functional import batch_value
from apml_plugin.losses.base import PointLoss
from apml_plugin.losses.geom import engine as engines
from apml_plugin.losses.geom.softmin import diameter_of
from apml_plugin.matching.gradients import once
from apml_plugin.matching.inputs import Lengths, check_clouds, compute_dtype, wide

Pair = tuple[Tensor, Tensor, Tensor, Tensor]  # weights (n,), points (n, D), weights (m,), points (m, D)

SQUARED = (1e-12, 1e16)
"""Extents of clouds whose squared distances float32 can hold, and their weighted sums."""

MASS_TOLERANCE = 1e-3
"""Masses with at most this relative difference count as equal: float16 weights sum no better."""


class GeometricLoss(PointLoss):
    """Computes each pair of a batch alone, so that its value depends neither on the other pairs nor on padding."""

    balanced: ClassVar[bool] = False
    """Whether both clouds must have the same mass."""

    def __init__(
        self, potentials: bool, backend: str, engine: str, reduction: str, ignore_zeros: bool, check_finite: bool
    ) -> None:
        super().__init__()
        self.potentials = flag("potentials", potentials)
        self.backend = one_of("backend", backend, engines.BACKENDS)
        self.engine = one_of("engine", engine, engines.ENGINES)
        self.reduction = one_of("reduction", reduction, ("mean", "none"))
        self.ignore_zeros = flag("ignore_zeros", ignore_zeros)
        self.check_finite = flag("check_finite", check_finite)

    def pair(self, pair: Pair) -> Any:
        """The loss of one pair, 0-dim, or with ``potentials`` two tensors (n,) and (m,)."""
        raise NotImplementedError

    def forward(
        self,
        pred: Tensor,
        gt: Tensor,
        pred_lengths: Lengths = None,
        gt_lengths: Lengths = None,
        pred_weights: Tensor | None = None,
        gt_weights: Tensor | None = None,
    ) -> Any:
        """The loss of clouds (B, N, D) and (B, M, D).

        Args:
            pred_lengths, gt_lengths: (B,) numbers of valid points; the rest is padding.
            pred_weights, gt_weights: (B, N) and (B, M), not negative. By default all valid points of a cloud have
                the same weight, and the sum is 1. Differentiable.

        Returns:
            0-dim, (B,) for ``reduction="none"``, or with ``potentials=True`` a pair (B, N), (B, M), padding 0.
            A pair with an empty side contributes 0.
        """
        return _batch(self, pred, gt, pred_lengths, gt_lengths, pred_weights, gt_weights)


@eager()
def _batch(
    loss: GeometricLoss,
    pred: Tensor,
    gt: Tensor,
    pred_lengths: Lengths,
    gt_lengths: Lengths,
    pred_weights: Tensor | None,
    gt_weights: Tensor | None,
) -> Any:
    clouds = check_clouds(
        pred, gt, pred_lengths, gt_lengths, ignore_zeros=loss.ignore_zeros, check_finite=loss.check_finite
    )
    if loss.ignore_zeros and (pred_weights is not None or gt_weights is not None):
        raise LossArgumentError("ignore_zeros=True and weights cannot be combined; give those points weight 0")
    a = check_weights("pred_weights", pred_weights, pred, clouds.pred_lengths)
    b = check_weights("gt_weights", gt_weights, gt, clouds.gt_lengths)
    dtype = compute_dtype(pred, gt)
    clouds = clouds._replace(pred=_once(clouds.pred), gt=_once(clouds.gt))
    a, b = (None if weights is None else _once(weights) for weights in (a, b))
    results: list[Any] = []
    with torch.autocast(pred.device.type, enabled=False):
        for k in range(len(pred)):
            x, y = clouds.pair(k)
            inside = _dtype_of(x, y, dtype)
            x, y = x.to(inside), y.to(inside)
            if not len(x) or not len(y):
                results.append((x[:, 0] * 0, y[:, 0] * 0) if loss.potentials else x.sum() * 0 + y.sum() * 0)
                continue
            u = x.new_full((len(x),), 1 / len(x)) if a is None else a[k, : len(x)].to(inside)
            v = y.new_full((len(y),), 1 / len(y)) if b is None else b[k, : len(y)].to(inside)
            if loss.balanced and (a is not None or b is not None):
                same_mass(k, u, v)
            result = loss.pair((u, x, v, y))
            results.append(tuple(one.to(dtype) for one in result) if loss.potentials else result.to(dtype))
    if loss.potentials:
        sides = []
        for side, cloud in enumerate((pred, gt)):
            rows = [torch.nn.functional.pad(pair[side], (0, cloud.shape[1] - len(pair[side]))) for pair in results]
            sides.append(torch.stack(rows) if rows else cloud.new_zeros(cloud.shape[:2], dtype=dtype))
        return tuple(sides)
    values = torch.stack(results) if results else (pred.sum() + gt.sum()).to(dtype).expand(0)
    return batch_value(values, loss.reduction, loss.check_finite)


def _dtype_of(x: Tensor, y: Tensor, dtype: torch.dtype) -> torch.dtype:
    """``dtype``, or float64 where squares of the differences of (n, D) and (m, D) could leave the range of float32."""
    if not len(x) or not len(y) or SQUARED[0] < diameter_of(wide(x), wide(y)) < SQUARED[1]:
        return dtype
    return torch.promote_types(dtype, wide(x[:0]).dtype)


def _once(values: Tensor) -> Tensor:
    # Potentials and one side of each kernel are held constant where the first derivative does not need theirs.
    return once(values, "Energy, Gaussian, Laplacian and Sinkhorn have none; EMD and Chamfer's relatives do")


def check_weights(name: str, weights: Any, cloud: Tensor, lengths: list[int] | None) -> Tensor | None:
    """(B, N) weights for the points of (B, N, D), or None.

    Raises:
        LossArgumentError, LossValueError: not floating point, another shape or device, negative, NaN, all 0.
    """
    if weights is None:
        return None
    if not isinstance(weights, Tensor) or not weights.is_floating_point():
        got = weights.dtype if isinstance(weights, Tensor) else type(weights).__name__
        raise LossArgumentError(f"{name} must be a floating-point tensor of shape (B, N), got {got}")
    batch, n = cloud.shape[:2]
    per_point: Tensor = weights[..., 0] if weights.shape == (batch, n, 1) else weights
    if per_point.shape != (batch, n):
        raise LossValueError(f"{name} must have shape {(batch, n)}, one for each point, got {tuple(per_point.shape)}")
    if per_point.device != cloud.device:
        raise LossValueError(f"{name} is on {per_point.device} and its points on {cloud.device}: move one")
    given = per_point.detach()
    if lengths is not None:
        inside = torch.arange(n, device=given.device) < torch.tensor(lengths, device=given.device)[:, None]
        given = given.where(inside, 0)
    if not bool(torch.isfinite(given).all()):
        raise LossValueError(f"{name} holds NaN or Inf")
    if bool((given < 0).any()):
        raise LossValueError(f"{name} must not be negative, got {float(given.min()):g}")
    empty = (given.sum(dim=1) <= 0).tolist()
    for b, nothing in enumerate(empty):
        if nothing and n and (lengths is None or lengths[b]):
            raise LossValueError(f"{name}[{b}] is 0 for every point; at least one must have weight")
    return per_point


def same_mass(pair: int, a: Tensor, b: Tensor, remedy: str = "divide each by its sum") -> None:
    """Raises LossValueError for two clouds of different mass, which a balanced loss cannot compare."""
    left, right = float(a.detach().sum()), float(b.detach().sum())
    if abs(left - right) > MASS_TOLERANCE * max(left, right):
        raise LossValueError(
            f"the weights of pair {pair} sum to {left:g} (pred) and {right:g} (gt): without reach= the "
            f"masses must be equal; {remedy}, or give reach="
        )
