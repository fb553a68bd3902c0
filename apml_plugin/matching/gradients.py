"""Losses whose gradients are computed in the forward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from apml_plugin.matching.inputs import wants_gradients

Solution = tuple[Tensor, Tensor | None, Tensor | None]
"""Losses (B,), and the gradients for pred and gt, or None for each."""


def with_gradients(pred: Tensor, gt: Tensor, solve: Callable[[bool], Solution]) -> Tensor:
    """The losses of ``solve(gradients)``, with the gradients that it computes beside them if any is needed.

    Backward multiplies them by the incoming gradient. First derivatives only.
    """
    if wants_gradients(pred, gt):
        losses: Tensor = _GradientInForward.apply(pred, gt, solve)  # type: ignore[no-untyped-call]
        return losses
    with torch.no_grad():
        return solve(False)[0]


class _GradientInForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pred: Tensor, gt: Tensor, solve: Callable[[bool], Solution]) -> Tensor:
        losses, pred_grad, gt_grad = solve(True)
        assert pred_grad is not None
        assert gt_grad is not None
        ctx.save_for_backward(pred_grad.to(pred.dtype), gt_grad.to(gt.dtype))
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        pred_grad, gt_grad = ctx.saved_tensors
        need_pred, need_gt, _ = ctx.needs_input_grad
        scale = grad[:, None, None]
        return (
            (pred_grad * scale).to(pred_grad.dtype) if need_pred else None,
            (gt_grad * scale).to(gt_grad.dtype) if need_gt else None,
            None,
        )
