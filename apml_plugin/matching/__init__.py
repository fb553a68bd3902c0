"""How a plan is made: the heart. ``match`` picks the backend and gives per-pair losses with gradients.

Knows clouds and numbers only: no YAML, no host, no nn.Module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from apml_plugin.matching import backends, dense, native, sparse
from apml_plugin.matching.inputs import Clouds, Lengths, check_clouds, compute_dtype, wants_gradients
from apml_plugin.matching.settings import AUTO, Settings

__all__ = ["Clouds", "Lengths", "Settings", "check_clouds", "compute_dtype", "match", "plan_of"]

Solution = tuple[Tensor, Tensor | None, Tensor | None]


def match(clouds: Clouds, settings: Settings, *, backend: str = "auto", differentiate_plan: bool = False) -> Tensor:
    """Losses (B,) of checked clouds, with gradients for pred and gt.

    An empty side gives loss 0 and gradient 0. Half precision is computed in float32 and its loss is float32;
    gradients come back in each input's dtype.

    Raises:
        BackendError: a backend asked for by name cannot do it.
    """
    pred, gt = clouds.pred, clouds.gt
    choice = backends.choose(backend, pred, gt, differentiate_plan, _is_exact(settings))
    dtype = compute_dtype(pred, gt)
    with torch.autocast(pred.device.type, enabled=False):
        if differentiate_plan and choice.name != "native":
            # In float32 the gradient through the temperatures would be off by 0.3 %. (MPS has no float64.)
            best = dtype if pred.device.type == "mps" else torch.float64
            return _differentiable(clouds._replace(pred=pred.to(best), gt=gt.to(best)), settings).to(dtype)

        def solve(gradients: bool) -> Solution:
            if choice.name == "native":
                return native.solve(clouds, settings, dtype, gradients, differentiate_plan)
            if choice.name == "dense":
                return _dense(clouds, settings, dtype, gradients)
            return _sparse(clouds, settings, dtype, gradients)

        return with_gradients(pred, gt, solve)


def with_gradients(pred: Tensor, gt: Tensor, solve: Callable[[bool], Solution]) -> Tensor:
    """The losses of ``solve``, whose gradients were computed beside them; without them where none is wanted."""
    if wants_gradients(pred, gt):
        losses: Tensor = _GradientInForward.apply(pred, gt, solve)  # type: ignore[no-untyped-call]
        return losses
    with torch.no_grad():
        return solve(False)[0]


def plan_of(clouds: Clouds, settings: Settings, *, backend: str = "auto") -> tuple[Tensor, list[float]]:
    """The plans as one coalesced sparse COO tensor (B, N, M), and the bound on the dropped mass of each.

    Memory: the support; with the dense backend, N M. The bound is 0 where nothing was dropped.
    """
    choice = backends.choose(backend, clouds.pred, clouds.gt, exact=_is_exact(settings))
    dtype = compute_dtype(clouds.pred, clouds.gt)
    shape = (clouds.pred.shape[0], clouds.pred.shape[1], clouds.gt.shape[1])
    device = clouds.pred.device
    indices = [torch.empty(3, 0, dtype=torch.int64, device=device)]
    values = [torch.empty(0, dtype=dtype, device=device)]
    dropped = [0.0] * shape[0]
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        if choice.name == "native":
            return _native_plan(clouds, settings, dtype)
        for b in range(shape[0]):
            x, y = clouds.pair(b)
            if len(x) == 0 or len(y) == 0:
                continue
            if choice.name == "dense":
                p = dense.plan(dense.pairwise_cost(x.to(dtype), y.to(dtype)), settings)
                rows, columns = p.nonzero(as_tuple=True)
                kept = p[rows, columns]
            else:
                rows, columns, kept, plan = sparse.plan_entries(*_searchable(x, y, dtype), settings)
                dropped[b] = plan.dropped
            indices.append(torch.stack((torch.full_like(rows, b), rows, columns)).to(device))
            values.append(kept.to(device, dtype))
        plans = torch.sparse_coo_tensor(torch.cat(indices, dim=1), torch.cat(values), shape, check_invariants=False)
        return plans.coalesce(), dropped


def _native_plan(clouds: Clouds, settings: Settings, dtype: torch.dtype) -> tuple[Tensor, list[float]]:
    indices, values, dropped, (row_spread, column_spread, row_scale, column_scale) = native.plan(
        clouds, settings, dtype
    )
    shape = (clouds.pred.shape[0], clouds.pred.shape[1], clouds.gt.shape[1])
    everything = [(indices, values)]
    for spread, other, swap in ((row_spread, column_scale, False), (column_spread, row_scale, True)):
        # Tied points: an entry for every point of the other cloud. Padding has scale 0.
        b, i = spread.nonzero(as_tuple=True)
        pair, j = (other[b] != 0).nonzero(as_tuple=True)
        b, i, share = b[pair], i[pair], spread[b, i][pair]
        rows, columns = (j, i) if swap else (i, j)
        everything.append((torch.stack((b, rows, columns)), (share * other[b, j]).to(dtype)))
    all_indices, all_values = (torch.cat(parts, dim=-1) for parts in zip(*everything, strict=True))
    return torch.sparse_coo_tensor(all_indices, all_values, shape, check_invariants=False).coalesce(), dropped


def _is_exact(settings: Settings) -> bool:
    return settings.threshold == AUTO or float(settings.threshold) <= backends.EXACT_FROM


class _GradientInForward(torch.autograd.Function):
    """Loss and both gradients in the forward pass; backward multiplies (apml.md, "Gradient in the forward pass")."""

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


def _dense(clouds: Clouds, settings: Settings, dtype: torch.dtype, gradients: bool) -> Solution:
    pred, gt = clouds.pred.to(dtype), clouds.gt.to(dtype)
    if not clouds.ragged and pred.shape[1] and gt.shape[1]:
        return dense.solve(pred, gt, settings, gradients)

    def one(x: Tensor, y: Tensor) -> Solution:
        losses, x_grad, y_grad = dense.solve(x[None].to(dtype), y[None].to(dtype), settings, gradients)
        return losses[0], None if x_grad is None else x_grad[0], None if y_grad is None else y_grad[0]

    return _each_pair(clouds, dtype, gradients, one)


def _sparse(clouds: Clouds, settings: Settings, dtype: torch.dtype, gradients: bool) -> Solution:
    def one(x: Tensor, y: Tensor) -> Solution:
        return sparse.solve(*_searchable(x, y, dtype), settings, gradients)

    return _each_pair(clouds, dtype, gradients, one)


def _each_pair(
    clouds: Clouds, dtype: torch.dtype, gradients: bool, one: Callable[[Tensor, Tensor], Solution]
) -> Solution:
    losses = torch.zeros(clouds.pred.shape[0], dtype=dtype, device=clouds.pred.device)
    pred_grad = torch.zeros_like(clouds.pred, dtype=dtype) if gradients else None
    gt_grad = torch.zeros_like(clouds.gt, dtype=dtype) if gradients else None
    for b in range(clouds.pred.shape[0]):
        x, y = clouds.pair(b)
        if len(x) == 0 or len(y) == 0:
            continue
        losses[b], x_grad, y_grad = one(x.detach(), y.detach())
        if pred_grad is not None and gt_grad is not None and x_grad is not None and y_grad is not None:
            pred_grad[b, : len(x)] = x_grad
            gt_grad[b, : len(y)] = y_grad
    return losses, pred_grad, gt_grad


def _searchable(x: Tensor, y: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The search knows CPU and CUDA; clouds from any other device are searched on the CPU."""
    if x.device.type not in ("cpu", "cuda"):
        x, y = x.cpu(), y.cpu()
    return x.detach().to(dtype), y.detach().to(dtype)


def _differentiable(clouds: Clouds, settings: Settings) -> Tensor:
    if not clouds.ragged and clouds.pred.shape[1] and clouds.gt.shape[1]:
        return dense.differentiable_loss(clouds.pred, clouds.gt, settings)
    # An empty pair still belongs to the graph, with gradient 0.
    anchor = clouds.pred.new_zeros(()) + clouds.pred.flatten()[:0].sum() + clouds.gt.flatten()[:0].sum()
    losses = []
    for b in range(clouds.pred.shape[0]):
        x, y = clouds.pair(b)
        empty = len(x) == 0 or len(y) == 0
        losses.append(anchor if empty else dense.differentiable_loss(x[None], y[None], settings)[0])
    return torch.stack(losses) if losses else anchor.expand(0)
