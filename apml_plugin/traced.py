"""The losses in a form that torch.compile can trace: one graph around the compiled ops.

Each function takes the arguments of its namesake in ``functional`` and gives the same value, or None where the call
cannot be traced (no compiled ops for it, lengths that are no integer tensors, ``ignore_zeros``, invalid arguments). The
call then runs outside the graph, with its usual checks and messages.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from apml_plugin._torch_private import assert_in_graph
from apml_plugin.matching import extension
from apml_plugin.matching.inputs import Lengths, compute_dtype, wants_gradients
from apml_plugin.matching.settings import TIES

INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
OUTSIDE = "apml_plugin: a length is below 0 or above the number of points"
NOT_FINITE = "apml_plugin: pred or gt holds NaN or Inf (without torch.compile the error names the cloud and the point)"


def apml_loss(
    pred: Tensor,
    gt: Tensor,
    *,
    p_min: float = 0.8,
    threshold: float | str = "auto",
    iterations: int = 20,
    eps: float = 1e-8,
    ties: str = "share",
    reduction: str = "sum",
    backend: str = "auto",
    differentiate_plan: bool = False,
    ignore_zeros: bool = False,
    pred_lengths: Lengths = None,
    gt_lengths: Lengths = None,
    check_finite: bool = True,
) -> Tensor | None:
    """See :func:`apml_plugin.functional.apml_loss`."""
    if ignore_zeros or backend not in ("auto", "native") or not _takes(pred, gt, pred_lengths, gt_lengths):
        return None
    if not _usable(p_min, threshold, iterations, eps, ties) or reduction not in ("sum", "mean", "none"):
        return None
    numbers = (
        float(p_min),
        0.0 if threshold == "auto" else float(threshold),
        iterations,
        float(eps),
        ties == "uniform",
    )
    clouds = _prepared(pred, gt, pred_lengths, gt_lengths, check_finite)
    losses: Tensor = torch.ops.apml.match(*clouds, *numbers, wants_gradients(pred, gt), differentiate_plan)[0]
    if reduction == "none":
        return losses
    if reduction == "mean":
        losses = losses / (gt.shape[1] if gt_lengths is None else clouds[3].clamp_min(1))
    return losses.mean()


def chamfer_distance(
    pred: Tensor,
    gt: Tensor,
    *,
    norm: str = "L2",
    direction: str = "both",
    reduction: str = "mean",
    ignore_zeros: bool = False,
    pred_lengths: Lengths = None,
    gt_lengths: Lengths = None,
    check_finite: bool = True,
) -> Tensor | None:
    """See :func:`apml_plugin.functional.chamfer_distance`."""
    if ignore_zeros or norm not in ("L1", "L2") or not _takes(pred, gt, pred_lengths, gt_lengths):
        return None
    if direction != "both" or reduction not in ("mean", "none"):
        return None
    clouds = _prepared(pred, gt, pred_lengths, gt_lengths, check_finite)
    losses: Tensor = torch.ops.apml.chamfer(*clouds, norm == "L2", wants_gradients(pred, gt))[0]
    return losses if reduction == "none" else losses.mean()


def _takes(pred: Any, gt: Any, pred_lengths: Any, gt_lengths: Any) -> bool:
    if not isinstance(pred, Tensor) or not isinstance(gt, Tensor) or pred.dim() != 3 or gt.dim() != 3:
        return False
    same = pred.shape[0] == gt.shape[0] and pred.shape[2] == gt.shape[2] and pred.device == gt.device
    # Empty batches and clouds are left to the code that is not traced.
    full = pred.shape[0] > 0 and pred.shape[1] > 0 and gt.shape[1] > 0
    usable = 1 <= pred.shape[2] <= extension.DIMENSIONS and pred.is_floating_point() and gt.is_floating_point()
    lengths = all(
        n is None or (isinstance(n, Tensor) and n.dtype in INTEGERS and n.shape == pred.shape[:1])
        for n in (pred_lengths, gt_lengths)
    )
    return same and full and usable and lengths and _has_ops(pred.device.type)


def _prepared(pred: Tensor, gt: Tensor, pred_lengths: Any, gt_lengths: Any, check_finite: bool) -> tuple[Any, ...]:
    """Both clouds in the dtype of the ops, and both lengths, int64 on their device, or None."""
    dtype = compute_dtype(pred, gt)
    lengths = [None if n is None else n.to(pred.device, torch.int64) for n in (pred_lengths, gt_lengths)]
    for cloud, valid in zip((pred, gt), lengths, strict=True):
        finite = torch.isfinite(cloud).all(dim=2)
        if valid is not None:
            assert_in_graph(((valid >= 0) & (valid <= cloud.shape[1])).all(), OUTSIDE)
            finite = finite | (torch.arange(cloud.shape[1], device=cloud.device) >= valid[:, None])
        if check_finite:
            assert_in_graph(finite.all(), NOT_FINITE)
    return pred.to(dtype), gt.to(dtype), *lengths


@torch.compiler.assume_constant_result  # looking for the ops reads files
def _has_ops(device: str) -> bool:
    return extension.missing(device) is None


def _usable(p_min: Any, threshold: Any, iterations: Any, eps: Any, ties: Any) -> bool:
    """What ``Settings`` accepts without converting anything; spelled out, because it is traced."""
    numbers = (p_min, eps) if threshold == "auto" else (p_min, eps, threshold)
    if not isinstance(iterations, int) or not all(isinstance(v, (int, float)) for v in numbers):
        return False
    return (
        0 <= p_min < 1 and (threshold == "auto" or 0 < threshold < 1) and eps > 0 and iterations >= 0 and ties in TIES
    )
