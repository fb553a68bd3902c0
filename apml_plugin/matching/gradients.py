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
    losses: Tensor = _GradientInForward.apply(clouds.pred, clouds.gt, of_values, twice)[0]  # type: ignore[no-untyped-call]
    return losses


def once(values: Tensor, twice: str) -> Tensor:
    """The same values. With respect to them there are first derivatives in reverse mode, and errors for all others.

    For losses whose graph holds constant what only further derivatives depend on. The error for a second derivative is
    raised when it is computed, not by ``create_graph=True``, which may be for another term.

    Args:
        twice: what the error says to use.
    """
    if not _differentiated(values):
        return values
    same: Tensor = _Once.apply(values, twice)[0]  # type: ignore[no-untyped-call]
    return same


def _differentiated(*values: Tensor) -> bool:
    """Whether a derivative of any kind is to go through one of these."""
    return wants_gradients(*values) or any(is_transformed(x) or _has_tangent(x) for x in values)


def _has_tangent(values: Tensor) -> bool:
    return forward_ad.unpack_dual(values).tangent is not None


class _GradientInForward(torch.autograd.Function):
    """The losses, from which derivatives follow that themselves depend on a witness: an output without elements."""

    @staticmethod
    def forward(
        pred: Tensor, gt: Tensor, solve: Callable[[Tensor, Tensor], Solution], twice: str
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        losses, pred_grad, gt_grad = solve(pred, gt)
        assert pred_grad is not None
        assert gt_grad is not None
        return losses, losses.new_empty(0), pred_grad.to(pred.dtype), gt_grad.to(gt.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        losses, *kept = output
        ctx.dtype, ctx.twice = losses.dtype, inputs[3]
        ctx.mark_non_differentiable(*kept[1:])
        ctx.save_for_backward(*kept)
        ctx.save_for_forward(*kept)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        witness, *grads = ctx.saved_tensors
        scale = _refused_twice(grad, witness, ctx.twice)[:, None, None]
        needed = ctx.needs_input_grad
        scaled = [(one * scale).to(one.dtype) if need else None for one, need in zip(grads, needed, strict=False)]
        return *scaled, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        witness, *grads = ctx.saved_tensors
        parts = [
            (one.to(ctx.dtype) * tangent).sum(dim=(1, 2))
            for one, tangent in zip(grads, tangents, strict=False)
            if tangent is not None
        ]
        slope = _refused_twice(sum(parts[1:], parts[0]), witness, ctx.twice)
        return slope, torch.zeros_like(witness), None, None


class _Once(torch.autograd.Function):
    """The identity, and a witness."""

    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor, twice: str) -> tuple[Tensor, Tensor]:
        return values.clone(), values.new_empty(0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.twice = inputs[1]
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None]:
        return _refused_twice(grad, ctx.saved_tensors[0], ctx.twice), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise BackendError(
            "this loss has no forward-mode derivatives: use reverse mode (backward(), torch.func.grad, vjp, jacrev)"
        )


def _refused_twice(derivative: Tensor, witness: Tensor, twice: str) -> Tensor:
    """The derivative, made to depend on the witness in a way that cannot be differentiated."""
    if not _differentiated(witness):
        return derivative
    nothing: Tensor = _Refusal.apply(witness, twice)  # type: ignore[no-untyped-call]
    return derivative + nothing


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
    def backward(ctx: Any, *_: Any) -> Any:
        raise BackendError(f"this loss has first derivatives only, and a second one was asked for: {ctx.twice}")

    jvp = backward
