"""Losses whose gradients are computed in the forward pass, and what may be differentiated how often.

The functions here work under ``torch.func`` too: they compute on the values alone, and derivatives are added after.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from apml_plugin._torch_private import is_transformed, on_values
from apml_plugin.errors import BackendError
from apml_plugin.matching.inputs import Clouds, wants_gradients

Solution = tuple[Tensor, Tensor | None, Tensor | None]
"""Losses (B,), and the gradients for pred and gt, or None for each."""


def with_gradients(clouds: Clouds, solve: Callable[[Clouds, bool], Solution], twice: str) -> Tensor:
    """The losses of ``solve(clouds, gradients)``, with the gradients that it computes beside them if any is needed.

    Backward multiplies them by the incoming gradient, and forward mode by the tangents.

    Args:
        twice: what to use for second derivatives, which are an error here.
    """

    def of_values(pred: Tensor, gt: Tensor, gradients: bool = True) -> Solution:
        return solve(clouds._replace(pred=pred, gt=gt), gradients)

    if not _differentiated(clouds.pred, clouds.gt):
        return on_values(lambda pred, gt: of_values(pred, gt, False)[0], clouds.pred, clouds.gt)
    pred, gt = once(clouds.pred, twice), once(clouds.gt, twice)
    losses: Tensor = _GradientInForward.apply(pred, gt, of_values)[0]  # type: ignore[no-untyped-call]
    return losses


def once(values: Tensor, twice: str, forward_mode: bool = True) -> Tensor:
    """The same values. A second derivative with respect to them is an error, where it would be wrong without a word.

    Args:
        twice: what the error says to use.
        forward_mode: whether the first derivative may be taken in forward mode.

    The error is raised when the second derivative is computed, not by ``create_graph=True``, which may be for others.
    """
    if not _differentiated(values):
        return values
    same: Tensor = _Once.apply(values, twice, forward_mode)[0]  # type: ignore[no-untyped-call]
    return same


def _differentiated(*values: Tensor) -> bool:
    """Whether a derivative of any kind is to go through one of these."""
    return wants_gradients(*values) or any(is_transformed(x) or _has_tangent(x) for x in values)


def _has_tangent(values: Tensor) -> bool:
    return forward_ad.unpack_dual(values).tangent is not None


class _GradientInForward(torch.autograd.Function):
    @staticmethod
    def forward(pred: Tensor, gt: Tensor, solve: Callable[[Tensor, Tensor], Solution]) -> tuple[Tensor, Tensor, Tensor]:
        losses, pred_grad, gt_grad = solve(pred, gt)
        assert pred_grad is not None
        assert gt_grad is not None
        return losses, pred_grad.to(pred.dtype), gt_grad.to(gt.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        losses, pred_grad, gt_grad = output
        ctx.dtype = losses.dtype
        ctx.mark_non_differentiable(pred_grad, gt_grad)
        ctx.save_for_backward(pred_grad, gt_grad)
        ctx.save_for_forward(pred_grad, gt_grad)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        scale = grad[:, None, None]
        needed = ctx.needs_input_grad
        grads = [
            (of_cloud * scale).to(of_cloud.dtype) if need else None
            for of_cloud, need in zip(ctx.saved_tensors, needed, strict=False)
        ]
        return *grads, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        parts = [
            (of_cloud.to(ctx.dtype) * tangent).sum(dim=(1, 2))
            for of_cloud, tangent in zip(ctx.saved_tensors, tangents, strict=False)
            if tangent is not None
        ]
        return sum(parts[1:], parts[0]), None, None


class _Once(torch.autograd.Function):
    """The identity. Its derivatives depend on a witness, an empty output, and that dependence is refused."""

    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor, twice: str, forward_mode: bool) -> tuple[Tensor, Tensor]:
        return values.clone(), values.new_empty(0)  # PyTorch wants a jvp in place for a view

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _, ctx.twice, ctx.forward_mode = inputs
        ctx.save_for_backward(output[1])
        ctx.save_for_forward(output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        (witness,) = ctx.saved_tensors
        return grad + _Refusal.apply(witness, ctx.twice), None, None  # type: ignore[no-untyped-call]

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> tuple[Tensor, Tensor]:
        if not ctx.forward_mode:
            raise BackendError(
                "this loss has no forward-mode derivatives: use reverse mode (backward(), torch.func.grad, vjp, jacrev)"
            )
        (witness,) = ctx.saved_tensors
        refusal = _Refusal.apply(witness, ctx.twice)  # type: ignore[no-untyped-call]
        return tangent + refusal, torch.zeros_like(witness)


class _Refusal(torch.autograd.Function):
    """0, which cannot be differentiated."""

    generate_vmap_rule = True

    @staticmethod
    def forward(witness: Tensor, twice: str) -> Tensor:
        return witness.new_zeros(())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.twice = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None]:
        raise BackendError(f"this loss has first derivatives only, and a second one was asked for: {ctx.twice}")

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        raise BackendError(f"this loss has first derivatives only, and a second one was asked for: {ctx.twice}")
