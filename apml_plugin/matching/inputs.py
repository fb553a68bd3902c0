"""All checks of clouds: rank, batch, dimension, dtype, device, finiteness, lengths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from apml_plugin._torch_private import is_vmapped
from apml_plugin.errors import LossArgumentError, LossValueError

MOST_COORDINATES = 8
"""2 or 3 points of more coordinates than this are taken for a cloud with its axes swapped."""

Lengths = Tensor | Sequence[int] | None


class Clouds(NamedTuple):
    """Checked input. Valid points come first in each cloud; lengths are None where all are valid."""

    pred: Tensor  # (B, N, D)
    gt: Tensor  # (B, M, D)
    pred_lengths: list[int] | None
    gt_lengths: list[int] | None

    @property
    def masses(self) -> list[int]:
        """Number of valid gt points of each pair, which is the mass of its plan."""
        return self.gt_lengths if self.gt_lengths is not None else [self.gt.shape[1]] * self.gt.shape[0]

    @property
    def ragged(self) -> bool:
        return self.pred_lengths is not None or self.gt_lengths is not None

    def pair(self, b: int) -> tuple[Tensor, Tensor]:
        """The valid points of pair ``b``: (n, D) and (m, D)."""
        n = self.pred.shape[1] if self.pred_lengths is None else self.pred_lengths[b]
        m = self.gt.shape[1] if self.gt_lengths is None else self.gt_lengths[b]
        return self.pred[b, :n], self.gt[b, :m]


def check_clouds(
    pred: Any,
    gt: Any,
    pred_lengths: Lengths = None,
    gt_lengths: Lengths = None,
    *,
    ignore_zeros: bool = False,
    check_finite: bool = True,
) -> Clouds:
    """Checks two batches of clouds and determines which of their points are valid.

    Args:
        pred, gt: (B, N, D) and (B, M, D), floating point, on one device. N or M may be 0.
        pred_lengths, gt_lengths: (B,) whole numbers; points past them are padding and may hold anything.
        ignore_zeros: drop points whose coordinates are all 0, in every cloud of the batch.
        check_finite: raise an error for NaN and Inf among the valid points (one reduction over each cloud).

    Raises:
        LossArgumentError: not a tensor, or not floating point.
        LossValueError: shapes, devices, lengths or values that cannot be matched; two clouds (B, 3, N), N > 8, unless
            lengths say that they are 3 points.
    """
    _check_tensor("pred", pred)
    _check_tensor("gt", gt)
    if pred.shape[0] != gt.shape[0]:
        raise LossValueError(f"pred and gt must have the same batch size, got pred {_shape(pred)} and gt {_shape(gt)}")
    if pred.shape[2] != gt.shape[2]:
        channels_first = {pred.shape[1], gt.shape[1]} & {2, 3}
        hint = "; clouds are (B, N, 3): use .transpose(1, 2) on (B, 3, N)" if channels_first else ""
        raise LossValueError(
            f"pred and gt must have the same number of coordinates, got pred {_shape(pred)} and gt {_shape(gt)}{hint}"
        )
    if pred.device != gt.device:
        raise LossValueError(
            f"pred and gt must be on the same device, got pred on {pred.device} and gt on {gt.device}: "
            f"move one, for example gt.to({str(pred.device)!r})"
        )
    if pred_lengths is None and gt_lengths is None and looks_transposed(pred, gt):
        raise LossValueError(
            f"pred {_shape(pred)} and gt {_shape(gt)} would be {pred.shape[1]} points of {pred.shape[2]} coordinates "
            "each; clouds are (B, N, 3): use .transpose(1, 2) on (B, 3, N). For points of so many coordinates give "
            f"pred_lengths=[{pred.shape[1]}] * {pred.shape[0]}"
        )
    pred_n = _check_lengths("pred_lengths", pred_lengths, pred)
    gt_n = _check_lengths("gt_lengths", gt_lengths, gt)
    if check_finite:
        _check_finite("pred", pred, pred_n)
        _check_finite("gt", gt, gt_n)
    if ignore_zeros:
        pred, pred_n = _drop_zeros(pred, pred_n)
        gt, gt_n = _drop_zeros(gt, gt_n)
    return Clouds(pred, gt, pred_n, gt_n)


def looks_transposed(pred: Tensor, gt: Tensor) -> bool:
    """Whether (..., N, D) and (..., M, D) look like clouds of 2 or 3 coordinates with their last axes swapped."""
    return pred.shape[-2] == gt.shape[-2] and pred.shape[-2] in (2, 3) and pred.shape[-1] > MOST_COORDINATES


def compute_dtype(pred: Tensor, gt: Tensor) -> torch.dtype:
    """The wider dtype of the two, float32 at least."""
    wider = torch.promote_types(pred.dtype, gt.dtype)
    return torch.promote_types(wider, torch.float32)


def wide(cloud: Tensor) -> Tensor:
    """The cloud in float64, in which no square of a float32 is 0 or infinite. MPS, which has none, keeps its dtype."""
    return cloud if cloud.device.type == "mps" else cloud.double()


def check_held(losses: Tensor) -> None:
    """Raises LossValueError for losses that are too large for their dtype. On the CPU only: it would stall a GPU."""
    if losses.device.type == "cpu" and bool(torch.isinf(losses.detach()).any()):
        raise LossValueError(
            f"the loss of pred and gt is larger than {str(losses.dtype).removeprefix('torch.')} can hold: use float64 "
            "or scale the clouds down"
        )


def wants_gradients(*clouds: Tensor) -> bool:
    """Whether autograd is to carry a gradient to any of the clouds."""
    return torch.is_grad_enabled() and any(cloud.requires_grad for cloud in clouds)


def _shape(x: Tensor) -> str:
    return str(tuple(x.shape))


def _check_tensor(name: str, x: Any) -> None:
    if not isinstance(x, Tensor):
        raise LossArgumentError(f"{name} must be a torch.Tensor of shape (B, N, D), got {type(x).__name__}")
    if is_vmapped(x):
        raise LossArgumentError(
            f"{name} is mapped over by torch.func.vmap, and the points of each pair decide what is computed: call the "
            "loss once, on the batch (B, N, D), with reduction='none' for one value a pair"
        )
    if x.dim() != 3:
        hint = f": use {name}.unsqueeze(0) for a single cloud" if x.dim() == 2 else ""
        raise LossValueError(f"{name} must have shape (B, N, D), got {_shape(x)}{hint}")
    if not x.is_floating_point():
        raise LossArgumentError(f"{name} must be floating point, got {x.dtype}: use {name}.float()")
    if x.shape[2] < 1:
        raise LossValueError(f"{name} must have at least one coordinate, got shape {_shape(x)}")


def _check_lengths(name: str, lengths: Lengths, cloud: Tensor) -> list[int] | None:
    if lengths is None:
        return None
    if isinstance(lengths, Tensor) and lengths.dtype == torch.bool:
        raise LossArgumentError(f"{name} is a mask and must hold numbers: use mask.sum(1), valid points first")
    try:
        given = list(lengths.tolist() if isinstance(lengths, Tensor) else lengths)
    except TypeError:
        raise LossArgumentError(f"{name}={lengths!r} must hold one length for each cloud, for example [5, 3]") from None
    batch, most = cloud.shape[0], cloud.shape[1]
    if len(given) != batch or any(isinstance(n, list) for n in given):
        raise LossValueError(f"{name} must hold one length for each of the {batch} clouds, got {lengths!r}")
    for b, n in enumerate(given):
        if isinstance(n, bool) or not isinstance(n, (int, float)) or n != n or math.isinf(n) or int(n) != n:
            raise LossArgumentError(f"{name}[{b}]={n!r} must be a whole number of points")
        if not 0 <= n <= most:
            raise LossValueError(f"{name}[{b}]={int(n)} must lie between 0 and {most}, the points of the cloud")
    counts = [int(n) for n in given]
    return None if all(n == most for n in counts) else counts


def _check_finite(name: str, cloud: Tensor, lengths: list[int] | None) -> None:
    finite = torch.isfinite(cloud.detach())
    if bool(finite.all()):
        return
    for b in range(cloud.shape[0]):
        valid = finite[b] if lengths is None else finite[b, : lengths[b]]
        bad = (~valid.all(dim=-1)).nonzero()
        if len(bad):
            n = int(bad[0])
            raise LossValueError(
                f"{name}[{b}] holds NaN or Inf: {len(bad)} of {len(valid)} points, the first at {name}[{b}, {n}] = "
                f"{cloud[b, n].tolist()}; look for a diverged network or a broken file "
                "(check_finite=False skips this check)"
            )


def _drop_zeros(cloud: Tensor, lengths: list[int] | None) -> tuple[Tensor, list[int] | None]:
    """Moves the points that count to the front, in their order. The gather carries the gradient back."""
    keep = (cloud.detach() != 0).any(dim=-1)
    if lengths is not None:
        positions = torch.arange(cloud.shape[1], device=cloud.device)
        keep &= positions < torch.tensor(lengths, device=cloud.device)[:, None]
    counts = keep.sum(dim=1).tolist()
    if all(n == cloud.shape[1] for n in counts):
        return cloud, None
    order = torch.argsort((~keep).to(torch.uint8), dim=1, stable=True)
    return torch.gather(cloud, 1, order[..., None].expand_as(cloud)), counts
