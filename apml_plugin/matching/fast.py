"""One-to-one matchings at the price of a neighbour search: two random trees matched, then swaps between neighbours.

1. Both clouds are split by the same random planes at the same ranks, part by part, and the last parts paired off
   (Genest, Bonneel, Nivoliers, Coeurjolly: BSP-OT, ACM Transactions on Graphics 44(6), 2025).
2. Two points exchange partners where that makes the sum of costs smaller (2-opt). Only near points are tried.
3. Of two matchings, the cheaper one is taken on each cycle of their union.

Every step keeps the matching one to one, so its cost is never below the exact earth mover's distance. Random decisions
are a function of the seed and of the place in the tree, the same on every device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from apml_plugin._torch_private import on_values
from apml_plugin.errors import LossValueError
from apml_plugin.matching import extension, native
from apml_plugin.matching.assignment import assign_pairs
from apml_plugin.matching.dense import root
from apml_plugin.matching.fast_torch import pairs_in_torch
from apml_plugin.matching.gradients import Solution, with_gradients
from apml_plugin.matching.inputs import Clouds, compute_dtype, wide
from apml_plugin.matching.search import nearest_index, squared_distance
from apml_plugin.matching.settings import FastSettings

TWICE = "use EMD or ApproximateEMD, which have all derivatives"


def fast_losses(clouds: Clouds, settings: FastSettings, dtype: torch.dtype) -> Tensor:
    """Mean costs (B,) of the matchings, differentiable in both clouds with the partners held constant.

    A pair with an empty side has cost 0.

    Raises:
        LossValueError: unequal numbers of points with ``unequal="raise"``.
    """
    _check_sizes(clouds, settings)

    if not _compiled(clouds):
        return _losses_of(clouds, settings, dtype)

    def solve(clouds: Clouds, gradients: bool) -> Solution:
        return native.fast_emd(clouds, settings, dtype, gradients)[:3]

    return with_gradients(clouds, solve, TWICE)


def fast_pairs(clouds: Clouds, settings: FastSettings) -> list[Tensor]:
    """For each pair of clouds the partners, (K, 2) int64: index of the pred point, index of the gt point.

    They are in the order of the larger cloud's points, or with ``unequal="smaller"`` of the smaller one's.

    Raises:
        LossValueError: as :func:`fast_losses`.
    """
    _check_sizes(clouds, settings)
    if not _compiled(clouds):
        return pairs_in_torch(clouds, settings)
    pairs = native.fast_emd(clouds, settings, compute_dtype(clouds.pred, clouds.gt), False)[3]
    sizes = [(len(x), len(y)) for x, y in map(clouds.pair, range(len(pairs)))]
    return [one[: settings.matched(n, m)] for one, (n, m) in zip(pairs, sizes, strict=True)]


BOUND = 0.05
"""The lower bound is within this share of the least cost, where one to one."""


def fast_bounds(clouds: Clouds, settings: FastSettings) -> Tensor:
    """Lower bounds (B,) float64 on the mean cost of any matching of each pair; 0 where a side is empty."""
    bounds = []
    for b in range(clouds.pred.shape[0]):
        x, y = (cloud[None].detach() for cloud in clouds.pair(b))
        if not x.shape[1] or not y.shape[1]:
            bounds.append(0.0)
        elif x.shape[1] == y.shape[1] or settings.unequal == "smaller":
            (found,) = assign_pairs(Clouds(x, y, None, None), BOUND, "smaller")
            bounds.append(found.bound if settings.norm == "L1" else found.bound**2)  # a mean of squares is no smaller
        else:  # each point of the larger cloud has a partner, which is no nearer than the nearest
            many, few = (x[0], y[0]) if x.shape[1] > y.shape[1] else (y[0], x[0])
            squared = squared_distance(many, few[nearest_index(many, few)]).double()
            bounds.append(float((squared if settings.norm == "L2" else squared.sqrt()).mean()))
    return torch.tensor(bounds, dtype=torch.float64)


def _compiled(clouds: Clouds) -> bool:
    return extension.offers("fast_emd", clouds.pred.device.type, clouds.pred.shape[2])


def _losses_of(clouds: Clouds, settings: FastSettings, dtype: torch.dtype) -> Tensor:
    matched = on_values(lambda x, y: pairs_in_torch(clouds._replace(pred=x, gt=y), settings), clouds.pred, clouds.gt)
    losses = []
    for b, pairs in enumerate(matched):
        x, y = (wide(cloud)[index] for cloud, index in zip(clouds.pair(b), pairs.unbind(1), strict=True))
        squared = squared_distance(x, y)
        mean = (squared if settings.norm == "L2" else root(squared)).sum() / max(len(pairs), 1)
        losses.append(mean.to(dtype))
    return torch.stack(losses) if losses else clouds.pred.to(dtype).sum(dim=(1, 2))


def _check_sizes(clouds: Clouds, settings: FastSettings) -> None:
    if settings.unequal != "raise":
        return
    for b in range(clouds.pred.shape[0]):
        n, m = (len(cloud) for cloud in clouds.pair(b))
        if n != m and n and m:
            raise LossValueError(
                f"pred[{b}] has {n} points and gt[{b}] {m}, and unequal='raise' asks for equal numbers: sample the "
                "larger cloud down, or use unequal='balanced' or 'smaller'"
            )
