"""Stateless losses on point clouds. Needs torch, NumPy and SciPy alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from apml_plugin._torch_private import on_values
from apml_plugin.arguments import one_of
from apml_plugin.eager import eager
from apml_plugin.errors import LossValueError
from apml_plugin.matching import (
    Clouds,
    Lengths,
    Settings,
    check_clouds,
    compute_dtype,
    extension,
    match,
    native,
    plan_of,
)
from apml_plugin.matching.assignment import UNEQUAL, assign_pairs
from apml_plugin.matching.dense import root
from apml_plugin.matching.fast import fast_bounds, fast_losses
from apml_plugin.matching.gradients import Solution, with_gradients
from apml_plugin.matching.inputs import check_held, wide
from apml_plugin.matching.nearest import DIRECTIONS, Nearest, both_ways, ways
from apml_plugin.matching.search import nearest_index, squared_distance
from apml_plugin.matching.settings import FastSettings
from apml_plugin.traced import apml_loss as traceable_apml_loss
from apml_plugin.traced import chamfer_distance as traceable_chamfer_distance

REDUCTIONS = ("sum", "mean", "none")

CHAMFER_TWICE = "use functional.nearest_both_ways, whose squared distances have all derivatives"

__all__ = [
    "apml_loss",
    "chamfer_distance",
    "earth_movers_distance",
    "fast_emd",
    "matching_plan",
    "nearest_both_ways",
    "nearest_neighbours",
]


@eager(traceable_apml_loss)
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
) -> Tensor:
    """Adaptive Probabilistic Matching Loss (arXiv 2509.08104, NeurIPS 2025).

    ``sum_ij P_ij ||x_i - y_j||`` with a soft one-to-one plan P, in the unit of the coordinates. Not symmetric:
    every gt point has mass 1. Not zero for equal clouds: the plan stays soft.

    Args:
        pred: (B, N, D) floating point. Half precision is computed in float32.
        gt: (B, M, D) on the same device.
        p_min, threshold, iterations, eps, ties: see :class:`apml_plugin.matching.Settings`.
        reduction: ``"sum"``: each pair's sum over its points, averaged over the batch (the published scale,
            which grows with M); ``"mean"``: each pair divided by its number of gt points first, the mean
            matched distance, comparable with Chamfer-L1; ``"none"``: the pairs' sums, (B,).
        backend: ``"auto"``, ``"native"``, ``"sparse"`` or ``"dense"``; one that is named is never replaced.
        differentiate_plan: differentiate through temperature, softmin and Sinkhorn too. Otherwise the plan is
            held constant, as in the published code. With this and ``backend="dense"`` there are derivatives of every
            order; otherwise first derivatives, in reverse and forward mode, and a second one is an error.
        ignore_zeros: drop points whose coordinates are all 0.
        pred_lengths, gt_lengths: (B,) numbers of valid points; the rest is padding and gets gradient 0.
        check_finite: raise an error for NaN and Inf (one reduction per cloud).

    Returns:
        0-dim tensor, or (B,) for ``reduction="none"``. A pair with an empty side contributes 0.

    Raises:
        LossArgumentError, LossValueError: unusable clouds or parameters; the message names them.
        BackendError: the backend named cannot compute it.
    """
    one_of("reduction", reduction, REDUCTIONS)
    settings = Settings(p_min, threshold, iterations, eps, ties)
    clouds = check_clouds(pred, gt, pred_lengths, gt_lengths, ignore_zeros=ignore_zeros, check_finite=check_finite)
    losses = match(clouds, settings, backend=backend, differentiate_plan=differentiate_plan)
    if reduction == "mean":
        losses = losses / losses.new_tensor([max(m, 1) for m in clouds.masses])
    return batch_value(losses, reduction, check_finite)


@eager()
def matching_plan(
    pred: Tensor,
    gt: Tensor,
    *,
    p_min: float = 0.8,
    threshold: float | str = "auto",
    iterations: int = 20,
    eps: float = 1e-8,
    ties: str = "share",
    backend: str = "auto",
    ignore_zeros: bool = False,
    pred_lengths: Lengths = None,
    gt_lengths: Lengths = None,
    check_finite: bool = True,
    return_bound: bool = False,
) -> Any:
    """The plan P behind :func:`apml_loss`: soft correspondences of the points.

    Args: as :func:`apml_loss`. ``return_bound``: also return a list of B floats, upper bounds on the mass of the
        entries that ``threshold`` leaves out. The mass of a plan is its number of gt points.

    Returns:
        A coalesced sparse COO tensor (B, N, M), float32 or float64, without gradient. Row i of pair b holds
        the gt points that pred point i is matched with; columns sum to 1. With ``ignore_zeros`` the indices
        are positions among the remaining points. Memory is that of the support (about 20 entries a point),
        but ``ties="uniform"`` writes out a full row or column for every tie.
    """
    settings = Settings(p_min, threshold, iterations, eps, ties)
    clouds = check_clouds(pred, gt, pred_lengths, gt_lengths, ignore_zeros=ignore_zeros, check_finite=check_finite)
    plans, dropped = plan_of(clouds, settings, backend=backend)
    return (plans, dropped) if return_bound else plans


@eager(traceable_chamfer_distance)
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
) -> Tensor:
    """Chamfer distance with PoinTr's factors; memory O(N + M).

    ``L2``: mean squared distance to the nearest point, pred to gt plus gt to pred, in squared units.
    ``L1``: half the sum of the two mean Euclidean distances. The derivative at distance 0 is 0, never NaN.

    Args:
        pred, gt: (B, N, D) and (B, M, D) floating point, on one device.
        norm: ``"L1"`` or ``"L2"``.
        direction: ``"both"``, or one of its two means alone, never halved: ``"pred_to_gt"`` (each pred point to the
            nearest gt point: pred may be a part of gt) or ``"gt_to_pred"`` (gt may be a part of pred).
        reduction: ``"mean"`` over points and batch; ``"sum"``: sums over the points instead of means, averaged
            over the batch; ``"none"``: the pairs' values with means over the points, (B,).
        ignore_zeros, pred_lengths, gt_lengths, check_finite: as :func:`apml_loss`.

    Raises:
        LossArgumentError, LossValueError: unusable clouds or parameters.
    """
    one_of("norm", norm, ("L1", "L2"))
    one_of("direction", direction, DIRECTIONS)
    one_of("reduction", reduction, REDUCTIONS)
    clouds = check_clouds(pred, gt, pred_lengths, gt_lengths, ignore_zeros=ignore_zeros, check_finite=check_finite)
    with torch.autocast(pred.device.type, enabled=False):
        if direction == "both" and reduction != "sum" and extension.problem(pred.device.type, pred.shape[2]) is None:
            dtype = compute_dtype(pred, gt)

            def solve(clouds: Clouds, gradients: bool) -> Solution:
                return native.chamfer(clouds, norm == "L2", dtype, gradients)

            losses = with_gradients(clouds, solve, CHAMFER_TWICE)
        else:
            sides = ways(clouds, direction)
            values = [way.distance() if norm == "L1" else way.dist for way in sides]
            pooled = [
                way.sum(value) if reduction == "sum" else way.mean(value)
                for way, value in zip(sides, values, strict=True)
            ]
            losses = pooled[0] if len(pooled) == 1 else pooled[0] + pooled[1]
            if norm == "L1" and direction == "both":
                losses = losses / 2
            losses = losses.to(compute_dtype(pred, gt))
    return batch_value(losses, reduction, check_finite)


@eager()
def earth_movers_distance(
    pred: Tensor,
    gt: Tensor,
    *,
    tolerance: float | None = None,
    unequal: str = "raise",
    reduction: str = "mean",
    ignore_zeros: bool = False,
    pred_lengths: Lengths = None,
    gt_lengths: Lengths = None,
    return_bound: bool = False,
) -> Any:
    """Mean Euclidean distance of the one-to-one assignment that makes it smallest, in the unit of the coordinates.

    Differentiable in both clouds with the assignment held constant, which gives the gradient wherever it exists. The
    assignment itself is found on the CPU in float64, also for clouds on a GPU.

    Args:
        pred, gt: (B, N, D) and (B, M, D) floating point, on one device.
        tolerance: None for the exact one; a number for one that costs at most (1 + tolerance) times the least one
            (without the compiled ops plus 1e-6 of the clouds' extent at most). Without the compiled ops the exact one
            is SciPy's linear_sum_assignment and needs N x M memory.
        unequal: what to do where pred and gt differ in number: ``"raise"`` an error, or match all points of the
            ``"smaller"`` cloud and leave the others out (they get gradient 0).
        reduction: ``"mean"`` over matched points and batch; ``"sum"``: sums over the matched points, averaged over
            the batch; ``"none"``: the pairs' means, (B,).
        ignore_zeros, pred_lengths, gt_lengths: as :func:`apml_loss`.
        return_bound: also return (B,) float64, lower bounds on the mean distance of any assignment, proven by the
            solver's prices: the exact value of each pair is between its bound and its mean.

    Raises:
        LossArgumentError, LossValueError: unusable clouds or parameters, NaN and Inf included.
    """
    one_of("reduction", reduction, REDUCTIONS)
    one_of("unequal", unequal, UNEQUAL)
    clouds = check_clouds(pred, gt, pred_lengths, gt_lengths, ignore_zeros=ignore_zeros)
    dtype = compute_dtype(pred, gt)
    with torch.autocast(pred.device.type, enabled=False):
        losses, bounds = [], []
        for b, matched in enumerate(assign_pairs(clouds, tolerance, unequal)):
            x, y = (wide(cloud) for cloud in clouds.pair(b))
            apart = root(squared_distance(x[matched.rows], y[matched.columns]))
            total = apart.sum()
            losses.append((total if reduction == "sum" else total / max(len(apart), 1)).to(dtype))
            bounds.append(matched.bound)
        values = torch.stack(losses) if losses else clouds.pred.to(dtype).sum(dim=(1, 2))
    loss = batch_value(values, reduction)
    return (loss, torch.tensor(bounds, dtype=torch.float64)) if return_bound else loss


@eager()
def fast_emd(
    pred: Tensor,
    gt: Tensor,
    *,
    restarts: int = 2,
    neighbours: int = 8,
    passes: int = 4,
    norm: str = "L1",
    unequal: str = "balanced",
    seed: int = 0,
    reduction: str = "mean",
    ignore_zeros: bool = False,
    pred_lengths: Lengths = None,
    gt_lengths: Lengths = None,
    return_bound: bool = False,
) -> Any:
    """Mean distance of partners in a one-to-one matching that costs little more than the best one.

    Two random trees are matched part by part (BSP-OT, ACM Transactions on Graphics 44(6), 2025), then neighbours
    exchange partners while that lowers the sum of distances. The value is never below the exact earth mover's distance.
    Differentiable in both clouds with the partners held constant. O(N + M) memory, in any number of coordinates.

    Args:
        pred, gt: (B, N, D) and (B, M, D) floating point, on one device.
        restarts, neighbours, passes, norm, unequal, seed: see :class:`apml_plugin.matching.settings.FastSettings`.
        reduction: ``"mean"`` over matched pairs and batch; ``"sum"``: sums over the matched pairs, averaged over the
            batch; ``"none"``: the means, (B,).
        ignore_zeros, pred_lengths, gt_lengths: as :func:`apml_loss`.
        return_bound: also return (B,) float64, lower bounds on the mean cost of any matching: ``value / bound - 1`` is
            how much above the best one the value is at most. Takes about as long as ApproximateEMD. For equal sizes,
            and with ``unequal="smaller"``, the bound comes from :func:`earth_movers_distance`, otherwise from the
            nearest neighbours.

    Raises:
        LossArgumentError, LossValueError: unusable clouds or parameters, NaN and Inf included.

    >>> x = torch.rand(1, 100, 3)
    >>> fast_emd(x, x[:, torch.randperm(100)] + 0.001).item() < 0.01
    True
    """
    one_of("reduction", reduction, REDUCTIONS)
    settings = FastSettings(restarts, neighbours, passes, norm, unequal, seed)
    clouds = check_clouds(pred, gt, pred_lengths, gt_lengths, ignore_zeros=ignore_zeros)
    with torch.autocast(pred.device.type, enabled=False):
        losses = fast_losses(clouds, settings, compute_dtype(pred, gt))
        if reduction == "sum":
            pairs = (clouds.pair(b) for b in range(len(losses)))
            losses = losses * losses.new_tensor([settings.matched(len(x), len(y)) for x, y in pairs])
        loss = batch_value(losses, reduction)
        return (loss, fast_bounds(clouds, settings)) if return_bound else loss


@eager()
def nearest_both_ways(
    pred: Tensor,
    gt: Tensor,
    *,
    ignore_zeros: bool = False,
    pred_lengths: Lengths = None,
    gt_lengths: Lengths = None,
    check_finite: bool = True,
) -> Nearest:
    """Nearest neighbours both ways: ``dist_xy`` (B, N), ``idx_xy``, ``dist_yx`` (B, M), ``idx_yx``; O(N + M) memory.

    Distances are squared and differentiable in both clouds; padding has distance 0 and index -1. With
    ``ignore_zeros`` indices are positions among the remaining points.

    Args and errors: as :func:`chamfer_distance`.
    """
    return both_ways(
        check_clouds(pred, gt, pred_lengths, gt_lengths, ignore_zeros=ignore_zeros, check_finite=check_finite)
    )


def nearest_neighbours(queries: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Euclidean distance (n,) and index (n,) of the nearest of ``points`` (m, D) for each query (n, D).

    Differentiable in both; the derivative at distance 0 is 0. By the compiled ops, else by a k-d tree on the CPU and
    blocks of distances on a GPU. m >= 1.

    Raises:
        LossValueError: NaN or Inf in either.
    """
    for name, cloud in (("queries", queries), ("points", points)):
        if not bool(torch.isfinite(cloud).all()):
            raise LossValueError(f"{name} holds NaN or Inf: there is no nearest point; look for a broken file")
    index = on_values(nearest_index, queries, points)
    return root(squared_distance(queries, points[index])), index


def batch_value(losses: Tensor, reduction: str, check: bool = True) -> Tensor:
    """The pairs' losses (B,) for ``"none"``, else their mean; 0 for an empty batch.

    Raises:
        LossValueError: a loss that is too large for its dtype, with ``check``.
    """
    value = losses
    if reduction != "none":
        value = losses.mean() if losses.numel() else losses.sum()
    if check:
        check_held(value)
    return value
