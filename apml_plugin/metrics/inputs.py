"""What all metrics do to their clouds: check, batch, and hand back one number or one a pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from apml_plugin.errors import LossValueError


def for_each_pair(pred: Tensor, gt: Tensor, metric: Callable[[Tensor, Tensor], float]) -> Tensor:
    """``metric`` of each pair of (N, D) and (M, D) clouds, in float64 without gradient.

    Returns a 0-dim tensor for (N, D) clouds and (B,) for (B, N, D) ones, on pred's device, in pred's dtype (float32
    for half precision). Raises LossValueError for clouds that are empty, not finite or do not go together.
    """
    check(pred, gt)
    dtype = torch.promote_types(pred.dtype, torch.float32)
    with torch.no_grad():
        if pred.ndim == 2:
            return torch.tensor(metric(pred.double(), gt.double()), dtype=dtype, device=pred.device)
        values = [metric(x, y) for x, y in zip(pred.double(), gt.double(), strict=True)]
        return torch.tensor(values, dtype=dtype, device=pred.device)


def check(pred: Tensor, gt: Tensor) -> None:
    """Raises LossValueError unless the clouds are (N, D) and (M, D), or (B, N, D) and (B, M, D), and usable."""
    for name, cloud in (("pred", pred), ("gt", gt)):
        if cloud.ndim not in (2, 3) or not cloud.is_floating_point():
            raise LossValueError(
                f"{name} must be a floating point (N, D) or (B, N, D) tensor, got {tuple(cloud.shape)} {cloud.dtype}"
            )
        if cloud.shape[-2] == 0:
            raise LossValueError(f"{name} has no points ({tuple(cloud.shape)}); a metric needs at least one")
        if not cloud.isfinite().all():
            raise LossValueError(f"{name} holds NaN or Inf; drop or repair these points first")
    if pred.ndim != gt.ndim or pred.shape[:-2] != gt.shape[:-2] or pred.shape[-1] != gt.shape[-1]:
        raise LossValueError(
            f"pred {tuple(pred.shape)} and gt {tuple(gt.shape)} must agree in batch size and dimension"
        )


def check_set(name: str, clouds: Sequence[Tensor] | Tensor) -> list[Tensor]:
    """The clouds of a set, each (N_i, D). Raises LossValueError for a set that is empty or holds an unusable cloud."""
    members = list(clouds)
    if not members:
        raise LossValueError(f"{name} is an empty set; give at least one cloud")
    for k, cloud in enumerate(members):
        if not isinstance(cloud, Tensor) or cloud.ndim != 2 or not cloud.is_floating_point() or not len(cloud):
            told = f"{tuple(cloud.shape)} {cloud.dtype}" if isinstance(cloud, Tensor) else type(cloud).__name__
            raise LossValueError(f"{name}[{k}] must be a floating point (N, D) tensor with points in it, got {told}")
        if not cloud.isfinite().all():
            raise LossValueError(f"{name}[{k}] holds NaN or Inf; drop or repair these points first")
        if cloud.shape[1] != members[0].shape[1]:
            raise LossValueError(f"{name}[{k}] has {cloud.shape[1]} coordinates, {name}[0] {members[0].shape[1]}")
    return members
