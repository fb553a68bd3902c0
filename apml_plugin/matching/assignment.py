"""One-to-one assignments with the least total distance, exact or with a proven bound.

By the compiled op ``assign`` (cuda_ext/cpu/assign.h says how), for which both are the same work. Where there is none,
and for more than three coordinates: exact by SciPy, with a bound by the auction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from torch import Tensor

from apml_plugin._torch_private import on_values
from apml_plugin.errors import LossValueError
from apml_plugin.matching import extension, native
from apml_plugin.matching.auction import auction
from apml_plugin.matching.inputs import Clouds

UNEQUAL = ("raise", "smaller")

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Assignment:
    """Point ``rows[k]`` of pred with point ``columns[k]`` of gt, each at most once; (K,) int64, K the smaller number.

    ``bound``: no one-to-one assignment of K pairs has a smaller mean distance than this.
    """

    rows: Tensor
    columns: Tensor
    bound: float


def assign_pairs(clouds: Clouds, tolerance: float | None, unequal: str) -> list[Assignment]:
    """The assignment of each pair of the batch; ``tolerance`` None for the exact one. An empty side gives K = 0.

    Raises:
        LossValueError: unequal numbers of points with ``unequal="raise"``, before anything is computed; coordinates
            whose distances float64 cannot hold.
    """
    sizes = [(len(x), len(y)) for x, y in (clouds.pair(b) for b in range(clouds.pred.shape[0]))]
    for b, (n, m) in enumerate(sizes):
        if n != m and n and m and unequal == "raise":
            raise LossValueError(
                f"pred[{b}] has {n} points and gt[{b}] {m}, and one-to-one matching needs equal numbers: sample the "
                "larger cloud down, or leave its surplus points out with unequal='smaller'"
            )
    return [on_values(lambda x, y: _assign(x, y, tolerance), *clouds.pair(b)) for b in range(len(sizes))]


def _assign(pred: Tensor, gt: Tensor, tolerance: float | None) -> Assignment:
    swap = len(pred) > len(gt)
    x, y = (cloud.double().cpu().numpy() for cloud in ((gt, pred) if swap else (pred, gt)))
    if len(x) == 0:
        none = torch.empty(0, dtype=torch.int64, device=pred.device)
        return Assignment(none, none, 0.0)
    # Coordinates in [0, 1]: neither squares nor prices can leave the range of float64.
    low, high = np.minimum(x.min(0), y.min(0)), np.maximum(x.max(0), y.max(0))
    with np.errstate(over="ignore"):
        extent = float((high - low).max())
    if not np.isfinite(extent):
        raise LossValueError(f"pred and gt span more than float64 can hold ({low} to {high}); scale them down")
    scale = extent or 1.0
    x, y = (x - low) / scale, (y - low) / scale
    if extension.offers("assign", "cpu", x.shape[1]):
        columns, bound = native.assign(x, y, tolerance or 0.0)
    else:
        columns, bound = _exact(x, y) if tolerance is None else auction(x, y, tolerance)
    index = torch.from_numpy(columns).to(pred.device)
    counting = torch.arange(len(x), device=pred.device)
    return Assignment(index, counting, bound * scale) if swap else Assignment(counting, index, bound * scale)


def _exact(x: Array, y: Array) -> tuple[NDArray[np.int64], float]:
    cost = cdist(x, y)
    rows, columns = linear_sum_assignment(cost)
    return columns.astype(np.int64), float(cost[rows, columns].mean())
