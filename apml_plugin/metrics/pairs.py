"""Metrics of one pair of clouds. Each is written for a `Pair`; `of_pairs` makes it a function of tensors."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from apml_plugin.errors import LossValueError
from apml_plugin.losses import DCD
from apml_plugin.matching import check_clouds
from apml_plugin.matching.assignment import assign_pairs

from .inputs import Pair, check

P = ParamSpec("P")


class PairMetric(Protocol[P]):
    """A metric of tensors: see `of_pairs`."""

    def __call__(self, pred: Tensor, gt: Tensor, *args: P.args, **options: P.kwargs) -> Tensor: ...


def of_pairs(measure: Callable[Concatenate[Pair, P], float]) -> PairMetric[P]:
    """Makes a metric of one `Pair` a function of ``pred`` and ``gt``: one pair of clouds, or a batch of them.

    The function takes (N, D) and (M, D) and returns a 0-dim tensor, or takes (B, N, D) and (B, M, D) and returns (B,).
    It computes in float64, without gradient, and returns pred's dtype (float32 for half precision) on pred's device.
    It raises LossValueError for clouds that are empty, not finite, or differ in batch size or dimension. The original
    stays available as its attribute ``of_pair``.
    """

    def function(pred: Tensor, gt: Tensor, *args: P.args, **options: P.kwargs) -> Tensor:
        check(pred, gt)
        dtype = torch.promote_types(pred.dtype, torch.float32)
        with torch.no_grad():
            if pred.ndim == 2:
                return torch.tensor(measure(Pair(pred, gt), *args, **options), dtype=dtype, device=pred.device)
            values = [measure(Pair(x, y), *args, **options) for x, y in zip(pred, gt, strict=True)]
            return torch.tensor(values, dtype=dtype, device=pred.device)

    functools.update_wrapper(function, measure)
    tensors = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("pred", "gt")]
    options = list(inspect.signature(measure).parameters.values())[1:]
    del function.__wrapped__  # type: ignore[attr-defined]
    function.__signature__ = inspect.Signature([*tensors, *options])  # type: ignore[attr-defined]
    function.of_pair = measure  # type: ignore[attr-defined]
    return function


@of_pairs
def cd_l1(pair: Pair) -> float:
    """Chamfer distance L1 as PoinTr reports it: half the sum of the two mean distances to the nearest point.

    In the unit of the coordinates; PoinTr prints it times 1000. Tensors and errors: see `of_pairs`.
    """
    return float(pair.to_gt.mean() + pair.to_pred.mean()) / 2


@of_pairs
def cd_l2(pair: Pair) -> float:
    """Sum of the two mean squared distances to the nearest point, in squared units. Otherwise as :func:`cd_l1`."""
    return float(pair.near.dist_xy.mean() + pair.near.dist_yx.mean())


@of_pairs
def hausdorff(pair: Pair) -> float:
    """Largest distance from any point to the nearest point of the other cloud, in the unit of the coordinates."""
    return float(torch.maximum(pair.to_gt.amax(), pair.to_pred.amax()))


@of_pairs
def f_score(pair: Pair, threshold: float = 0.01) -> float:
    """Harmonic mean of precision and recall (Tatarchenko et al. 2019; PoinTr's F-Score@1% on unit-sized shapes).

    Precision is the share of pred points nearer than ``threshold`` to gt; recall is the share of gt points nearer
    than ``threshold`` to pred. Distances are Euclidean and must be strictly smaller. 0 where both are 0. Between 0
    and 1, higher is better. ``threshold`` is in the unit of the coordinates.

    Raises LossValueError for a threshold that is not positive. Tensors and other errors: see `of_pairs`.
    """
    if not threshold > 0:
        raise LossValueError(f"threshold={threshold!r} must be a positive distance")
    precision = float((pair.to_gt < threshold).double().mean())
    recall = float((pair.to_pred < threshold).double().mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@of_pairs
def dcd(pair: Pair, alpha: float = 1000.0, n_lambda: float = 1.0, non_reg: bool = False) -> float:
    """Density-aware Chamfer distance (Wu et al., NeurIPS 2021): the value of the loss :class:`apml_plugin.DCD`.

    About 0 for equal clouds and at most 1; with unequal numbers of points it can leave [0, 1] (see the loss). Lower
    is better. ``alpha`` is per squared unit of the coordinates. Raises LossValueError for arguments out of range.
    """
    loss = DCD(alpha, n_lambda, non_reg)
    return float(loss.combined([loss.pooled(pair.near.xy), loss.pooled(pair.near.yx)])[0])


@of_pairs
def emd(pair: Pair, points: int | None = None) -> float:
    """Earth mover's distance: mean distance of the one-to-one assignment that makes it smallest.

    In the unit of the coordinates. Exact, on the CPU: 16,384 points take seconds with the compiled ops. Without them
    memory is N x N, and 4,096 points take 2 s.

    Args:
        points: None compares all points, and both clouds must have as many. A number compares that many points of
            each cloud, or as many as the smaller one has. A cloud of a given size is always sampled at the same
            indices, so epochs, losses and runs are compared on one sample. The estimate is biased upward: two samples
            of the same cloud are a distance apart.

    Raises LossValueError for ``points`` below 1 and, without ``points``, for unequal numbers of points.
    """
    if points is None:
        return float(assigned_distances(pair.pred, pair.gt).mean())
    if points < 1:
        raise LossValueError(f"points={points!r} must be at least 1")
    n = min(len(pair.pred), len(pair.gt), points)
    return float(assigned_distances(_sample(pair.pred, n), _sample(pair.gt, n)).mean())


def assigned_distances(pred: Tensor, gt: Tensor) -> Tensor:
    """(N,) distances under the one-to-one assignment of least total distance of clouds (N, D)."""
    if len(pred) != len(gt):
        raise LossValueError(
            f"EMD needs as many predicted as true points, got {len(pred)} and {len(gt)}; sample the larger cloud down"
        )
    matched = assign_pairs(check_clouds(pred[None], gt[None]), None, "raise")[0]
    distances: Tensor = (pred[matched.rows] - gt[matched.columns]).norm(dim=-1)
    return distances


def _sample(cloud: Tensor, n: int) -> Tensor:
    return cloud[torch.randperm(len(cloud), generator=torch.Generator().manual_seed(0))[:n].to(cloud.device)]


@of_pairs
def uniformity(pair: Pair, share: float = 0.012, disks: int = 200) -> float:
    """Normalised uniformity coefficient (NUC; Yu et al., PU-Net, CVPR 2018, section 4.2). Lower is better.

    NUC is the root mean square deviation, over disks of equal area on the surface, of ``n_i / (N p)`` from its fair
    value 1: the share of the points that fall into disk i over the share p of the area that a disk covers. PU-Net
    measures the deviation from the mean ratio instead, by which a cloud that misses the surface would be perfect.
    PU-Net reads areas from a mesh; here the ground truth, sampled by area, stands for the surface. Disk i is the ball
    around one of ``disks`` of its points that just holds a ``share`` of all of them. The centres are chosen by farthest
    point sampling from the point farthest from the centroid, so the value is deterministic. Clumps and holes raise it.
    A copy of gt has 0, another sample of the same surface about ``sqrt(1 / (M p))``, a cloud elsewhere 1, a clump more.

    Args: ``share`` in (0, 1]; PU-Net reports 0.002 to 0.012. ``disks`` of at least 2. Raises LossValueError for others.
    """
    if not 0 < share <= 1:
        raise LossValueError(f"share={share!r} must be in (0, 1]")
    if disks < 2:
        raise LossValueError(f"disks={disks!r} must be at least 2")
    pred, gt = pair.pred.cpu().numpy(), pair.gt.cpu().numpy()
    centres = gt[_farthest_points(gt, min(disks, len(gt)))]
    held = min(max(2, round(share * len(gt))), len(gt))
    radii = cKDTree(gt).query(centres, k=[held])[0][:, 0] * (1 + 1e-9)  # the last point is inside despite rounding
    counts = cKDTree(pred).query_ball_point(centres, radii, return_length=True)
    return float(np.sqrt(np.square(counts / len(pred) / (held / len(gt)) - 1).mean()))


def _farthest_points(points: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """(count,) indices of farthest point sampling, beginning with the point farthest from the centroid."""
    chosen = np.empty(count, np.int64)
    nearest = np.full(len(points), np.inf)
    chosen[0] = np.square(points - points.mean(0)).sum(1).argmax()
    for k in range(1, count):
        nearest = np.minimum(nearest, np.square(points - points[chosen[k - 1]]).sum(1))
        chosen[k] = nearest.argmax()
    return chosen
