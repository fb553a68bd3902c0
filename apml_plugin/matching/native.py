"""The compiled ops ``torch.ops.apml.*``: loading them, what they need to be traced, and calling them on clouds.

Their schemas and promises are in cuda_ext/schema.h. They take float32 and float64 clouds with one to three
coordinates, on the CPU and, where built for it, on CUDA.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from apml_plugin.errors import BackendError
from apml_plugin.matching import build_record
from apml_plugin.matching.auto_threshold import START, Tightening
from apml_plugin.matching.inputs import Clouds, compute_dtype
from apml_plugin.matching.settings import AUTO, Settings

DIMENSIONS = 3
"""The most coordinates the ops take."""


@functools.cache
def loading_problem() -> str | None:
    """Loads the ops, once. Why there are none, or None."""
    problem = build_record.unusable(build_record.read())
    if problem is None:
        try:
            import apml_plugin._C  # noqa: F401 - loading registers the ops
        except ImportError as error:
            problem = f"they do not load ({error})"
        else:
            _describe()
            return None
    return f"{problem} (`{build_record.rebuild_command()}` builds them)"


def missing(device: str) -> str | None:
    """Why there are no compiled ops for a type of device ("cpu", "cuda", "mps"), or None."""
    if problem := loading_problem():
        return f"there are no compiled ops: {problem}"
    return _missing_kernels(device)


@functools.cache  # asked at every call of a loss, and answered from a file
def _missing_kernels(device: str) -> str | None:
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    if device in ("cpu", "cuda") and has_kernel("apml::match", device.upper()):
        return None
    record = build_record.read()
    why = record.missing.get(device) if record else None
    return f"the compiled ops have no part for {device} tensors: {why or 'only cpu and cuda can have one'}"


def solve(
    clouds: Clouds, settings: Settings, dtype: torch.dtype, gradients: bool, differentiate_plan: bool = False
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Losses (B,) and both gradients, or None for each.

    Raises:
        BackendError: a loss came out NaN or infinite (CPU only: asking a GPU would stall it), or the plan cannot
            be differentiated because its scalings leave the range of float64.
        torch.OutOfMemoryError: the support does not fit; the message says how large it is.
    """
    pred, gt = clouds.pred.detach().to(dtype), clouds.gt.detach().to(dtype)
    lengths = _lengths(clouds)

    def run(threshold: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        try:
            result: tuple[Tensor, Tensor, Tensor, Tensor] = torch.ops.apml.match(
                pred,
                gt,
                *lengths,
                settings.p_min,
                threshold,
                settings.iterations,
                settings.eps,
                settings.ties == "uniform",
                gradients,
                differentiate_plan,
            )
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if "cannot be differentiated" in str(error):
                raise BackendError(str(error).splitlines()[0]) from None
            raise
        return result

    losses, pred_grad, gt_grad, _ = _tightened(run, settings, clouds)
    if losses.device.type == "cpu" and not bool(torch.isfinite(losses).all()):
        why = (
            "it is larger than float32 can hold: use float64 or smaller coordinates"
            if bool(torch.isinf(losses).any())
            else f"use fewer iterations than {settings.iterations}, a larger eps than {settings.eps:g} or "
            "backend='dense'; check_finite=True refuses NaN, and coordinates beyond 1e150 cannot be squared"
        )
        raise BackendError(f"the native backend's loss is {losses.tolist()}: {why}")
    return (losses, pred_grad, gt_grad) if gradients else (losses, None, None)


def plan(
    clouds: Clouds, settings: Settings, dtype: torch.dtype
) -> tuple[Tensor, Tensor, list[float], tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Indices (3, nnz) and values (nnz,) of all plans, the bound on each one's dropped mass, and the uniform part.

    The uniform part is row_spread (B, N), column_spread (B, M), row_scale (B, N) and column_scale (B, M), float64:
    ``row_spread_i column_scale_j + row_scale_i column_spread_j`` is to be added for tied rows and columns.
    """
    pred, gt = clouds.pred.detach().to(dtype), clouds.gt.detach().to(dtype)
    lengths = _lengths(clouds)

    def run(threshold: float) -> tuple[Tensor, ...]:
        indices, values, dropped, *uniform = torch.ops.apml.plan(
            pred,
            gt,
            *lengths,
            settings.p_min,
            threshold,
            settings.iterations,
            settings.eps,
            settings.ties == "uniform",
        )
        return (indices, values, *uniform, dropped)

    indices, values, *uniform, dropped = _tightened(run, settings, clouds)
    return indices, values, dropped.tolist(), (uniform[0], uniform[1], uniform[2], uniform[3])


def nearest(queries: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distance (n,) and index (n,) of the nearest of ``points`` (m, D) for each query (n, D), D <= 3."""
    dtype = compute_dtype(queries, points)
    squared, index = torch.ops.apml.nearest(queries[None].to(dtype), points[None].to(dtype), None, None)
    return squared[0], index[0]


def nearest_of_batch(
    queries: Tensor, points: Tensor, query_lengths: list[int] | None, point_lengths: list[int] | None
) -> Tensor:
    """Index (B, N) of the nearest of ``points`` (B, M, D) for each query (B, N, D), D <= 3; -1 where there is none."""
    lengths = [
        None if counts is None else torch.tensor(counts, dtype=torch.int64, device=queries.device)
        for counts in (query_lengths, point_lengths)
    ]
    index: Tensor = torch.ops.apml.nearest(queries, points, *lengths)[1]
    return index


def chamfer(
    clouds: Clouds, squared: bool, dtype: torch.dtype, gradients: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Chamfer distances (B,) with PoinTr's factors and both gradients, or None for each."""
    pred, gt = clouds.pred.detach().to(dtype), clouds.gt.detach().to(dtype)
    losses, pred_grad, gt_grad = torch.ops.apml.chamfer(pred, gt, *_lengths(clouds), squared, gradients)
    return (losses, pred_grad, gt_grad) if gradients else (losses, None, None)


def _tightened(run: Any, settings: Settings, clouds: Clouds) -> Any:
    """run(threshold), whose last result is the bound; ``threshold="auto"`` repeats it until the bound is met."""
    if settings.threshold != AUTO:
        return run(float(settings.threshold))
    tightening = Tightening()
    threshold: float | None = START
    while threshold is not None:
        result = run(threshold)
        threshold = tightening.after(threshold, list(zip(result[-1].tolist(), clouds.masses, strict=True)))
    return result


def _lengths(clouds: Clouds) -> tuple[Tensor | None, Tensor | None]:
    def tensor(counts: list[int] | None) -> Tensor | None:
        return None if counts is None else torch.tensor(counts, dtype=torch.int64, device=clouds.pred.device)

    return tensor(clouds.pred_lengths), tensor(clouds.gt_lengths)


def _describe() -> None:
    """Shapes for tracing, and the gradient formulas: everything was computed in the forward pass."""

    @torch.library.register_fake("apml::match")
    def _(pred: Tensor, gt: Tensor, *args: Any) -> tuple[Tensor, ...]:
        gradients = args[7]
        return (*_like_losses(pred, gt, gradients), pred.new_empty(pred.shape[0], dtype=torch.float64))

    @torch.library.register_fake("apml::chamfer")
    def _(pred: Tensor, gt: Tensor, *args: Any) -> tuple[Tensor, ...]:
        return _like_losses(pred, gt, args[3])

    @torch.library.register_fake("apml::nearest")
    def _(queries: Tensor, points: Tensor, *lengths: Any) -> tuple[Tensor, Tensor]:
        return queries.new_empty(queries.shape[:2]), queries.new_empty(queries.shape[:2], dtype=torch.int64)

    @torch.library.register_fake("apml::plan")
    def _(pred: Tensor, gt: Tensor, *args: Any) -> tuple[Tensor, ...]:
        entries = torch.library.get_ctx().new_dynamic_size()
        wide = [cloud.new_empty(cloud.shape[:2], dtype=torch.float64) for cloud in (pred, gt, pred, gt)]
        indices = pred.new_empty(3, entries, dtype=torch.int64)
        return indices, pred.new_empty(entries), pred.new_empty(pred.shape[0], dtype=torch.float64), *wide

    for op in ("apml::match", "apml::chamfer"):
        torch.library.register_autograd(op, _backward, setup_context=_keep_gradients)


def _like_losses(pred: Tensor, gt: Tensor, gradients: bool) -> tuple[Tensor, Tensor, Tensor]:
    def gradient(cloud: Tensor) -> Tensor:
        return cloud.new_empty(cloud.shape[0], cloud.shape[1] if gradients else 0, cloud.shape[2])

    return pred.new_empty(pred.shape[0]), gradient(pred), gradient(gt)


def _keep_gradients(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, pred_grad, gt_grad, *rest = output
    ctx.arguments = len(inputs)
    ctx.save_for_backward(pred_grad, gt_grad)
    ctx.mark_non_differentiable(pred_grad, gt_grad, *rest)


def _backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    pred_grad, gt_grad = ctx.saved_tensors
    if pred_grad.shape[1] == 0 and gt_grad.shape[1] == 0:
        raise RuntimeError("torch.ops.apml: a backward pass needs gradients=True in the forward pass")
    scale = grad[:, None, None]
    none = (None,) * (ctx.arguments - 2)
    return (
        pred_grad * scale if ctx.needs_input_grad[0] else None,
        gt_grad * scale if ctx.needs_input_grad[1] else None,
        *none,
    )
