"""APML, Chamfer and nearest neighbours by the compiled ops, on checked clouds."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from apml_plugin.errors import BackendError
from apml_plugin.matching.inputs import Clouds, compute_dtype
from apml_plugin.matching.settings import FastSettings, Settings, warn_if_inexact

ASSIGNING_AT_ONCE = 20_000_000
"""Steps of the op ``assign`` in one call, which Ctrl-C cannot end: a few seconds. Twice as many for 65,536 points."""


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

    try:
        losses, pred_grad, gt_grad, dropped = torch.ops.apml.match(
            pred, gt, *lengths, *_numbers(settings), gradients, differentiate_plan
        )
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if "cannot be differentiated" in str(error):
            raise BackendError(str(error).splitlines()[0]) from None
        raise
    warn_if_inexact(settings, dtype, dropped.tolist(), clouds.masses)
    if losses.device.type == "cpu" and not bool(torch.isfinite(losses).all()):
        why = (
            "it is larger than float32 can hold: use float64 or smaller coordinates"
            if bool(torch.isinf(losses).any())
            else f"use fewer iterations than {settings.iterations}, a larger eps than {settings.eps:g} or "
            "backend='dense'; check_finite=True rejects NaN, and coordinates beyond 1e150 cannot be squared"
        )
        raise BackendError(f"the native backend's loss is {losses.tolist()}: {why}")
    return (losses, pred_grad, gt_grad) if gradients else (losses, None, None)


def plans(clouds: Clouds, settings: Settings, dtype: torch.dtype) -> tuple[Tensor, list[float]]:
    """The plans as one coalesced sparse COO tensor (B, N, M), and the bound on the dropped mass of each."""
    pred, gt = clouds.pred.detach().to(dtype), clouds.gt.detach().to(dtype)
    lengths = _lengths(clouds)

    indices, values, dropped, row_spread, column_spread, row_scale, column_scale = torch.ops.apml.plan(
        pred, gt, *lengths, *_numbers(settings)
    )
    warn_if_inexact(settings, dtype, dropped.tolist(), clouds.masses)
    everything = [(indices, values)]
    # Tied rows and columns come as vectors: entry ij is row_spread_i column_scale_j + row_scale_i column_spread_j.
    for spread, other, swap in ((row_spread, column_scale, False), (column_spread, row_scale, True)):
        b, i = spread.nonzero(as_tuple=True)
        pair, j = (other[b] != 0).nonzero(as_tuple=True)  # padding has scale 0
        b, i, share = b[pair], i[pair], spread[b, i][pair]
        rows, columns = (j, i) if swap else (i, j)
        everything.append((torch.stack((b, rows, columns)), (share * other[b, j]).to(dtype)))
    all_indices, all_values = (torch.cat(parts, dim=-1) for parts in zip(*everything, strict=True))
    shape = (pred.shape[0], pred.shape[1], gt.shape[1])
    return torch.sparse_coo_tensor(all_indices, all_values, shape, check_invariants=False).coalesce(), dropped.tolist()


def nearest(queries: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distance (n,) and index (n,) of the nearest of ``points`` (m, D) for each query (n, D), D <= 3."""
    dtype = compute_dtype(queries, points)
    squared, index = torch.ops.apml.nearest(queries[None].to(dtype), points[None].to(dtype), None, None)
    return squared[0], index[0]


def nearest_of_batch(
    queries: Tensor, points: Tensor, query_lengths: list[int] | None, point_lengths: list[int] | None
) -> Tensor:
    """Index (B, N) of the nearest of ``points`` (B, M, D) for each query (B, N, D), D <= 3; -1 where there is none."""
    index: Tensor = torch.ops.apml.nearest(
        queries, points, _tensor(query_lengths, queries), _tensor(point_lengths, queries)
    )[1]
    return index


def chamfer(
    clouds: Clouds, squared: bool, dtype: torch.dtype, gradients: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Chamfer distances (B,) with PoinTr's factors and both gradients, or None for each."""
    pred, gt = clouds.pred.detach().to(dtype), clouds.gt.detach().to(dtype)
    losses, pred_grad, gt_grad = torch.ops.apml.chamfer(pred, gt, *_lengths(clouds), squared, gradients)
    return (losses, pred_grad, gt_grad) if gradients else (losses, None, None)


def fast_emd(
    clouds: Clouds, settings: FastSettings, dtype: torch.dtype, gradients: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean costs (B,), both gradients and pairs (B, max(N, M), 2) of :mod:`apml_plugin.matching.fast`."""
    pred, gt = clouds.pred.detach().to(dtype), clouds.gt.detach().to(dtype)
    result: tuple[Tensor, Tensor, Tensor, Tensor] = torch.ops.apml.fast_emd(
        pred,
        gt,
        *_lengths(clouds),
        settings.key,
        settings.restarts,
        settings.neighbours,
        settings.passes,
        settings.norm == "L2",
        settings.unequal == "smaller",
        gradients,
    )
    return result


def assign(
    x: NDArray[np.float64], y: NDArray[np.float64], tolerance: float, start: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], float]:
    """Index (n,) into ``y`` (m, D) of a one-to-one assignment of ``x`` (n, D), 1 <= n <= m, D <= 3, and a bound.

    Mean distance <= (1 + tolerance) bound, and the bound <= the least mean distance; both equal to rounding with
    ``tolerance`` 0. Coordinates lie in [0, 1]. ``start`` (n,) is an assignment to begin with, -1 for none; it changes
    the time and which of equally good assignments comes out. Ctrl-C ends it within seconds.
    """
    columns = torch.full((len(x),), -1) if start is None else torch.from_numpy(start)
    prices = torch.zeros(len(y), dtype=torch.float64)
    eps, finished = float("inf"), False
    steps = ASSIGNING_AT_ONCE + ASSIGNING_AT_ONCE * len(y) // 65_536  # each call makes its lists of neighbours anew
    while not finished:
        columns, prices, eps, _, bound, finished = torch.ops.apml.assign(
            torch.from_numpy(x), torch.from_numpy(y), columns, prices, eps, tolerance, steps
        )
    return columns.numpy(), bound / len(x)


def _numbers(settings: Settings) -> tuple[float, float, int, float, bool]:
    return settings.p_min, settings.number, settings.iterations, settings.eps, settings.ties == "uniform"


def _lengths(clouds: Clouds) -> tuple[Tensor | None, Tensor | None]:
    return _tensor(clouds.pred_lengths, clouds.pred), _tensor(clouds.gt_lengths, clouds.gt)


def _tensor(counts: list[int] | None, like: Tensor) -> Tensor | None:
    return None if counts is None else torch.tensor(counts, dtype=torch.int64, device=like.device)
