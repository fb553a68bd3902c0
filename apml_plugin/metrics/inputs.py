"""Checks of the clouds that metrics take, and the record of one pair that all metrics of a pair are computed from."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from torch import Tensor

from apml_plugin.errors import LossValueError
from apml_plugin.functional import nearest_both_ways
from apml_plugin.matching.inputs import looks_transposed
from apml_plugin.matching.nearest import Nearest


class Pair:
    """``pred`` (N, D) and ``gt`` (M, D) in float64. Their nearest neighbours are searched once, for all metrics."""

    def __init__(self, pred: Tensor, gt: Tensor) -> None:
        self.pred, self.gt = pred.detach().double(), gt.detach().double()

    @classmethod
    def checked(cls, pred: Tensor, gt: Tensor) -> Pair:
        """The pair; raises LossValueError unless the clouds are (N, D) and (M, D) and usable."""
        check(pred, gt)
        if pred.ndim != 2:
            raise LossValueError(f"pred must be one cloud (N, D) here, got {tuple(pred.shape)}; go through the batch")
        return cls(pred, gt)

    @cached_property
    def near(self) -> Nearest:
        return nearest_both_ways(self.pred[None], self.gt[None])

    @cached_property
    def to_gt(self) -> Tensor:
        """(N,) Euclidean distance from each predicted point to the nearest true one."""
        return self.near.dist_xy[0].sqrt()

    @cached_property
    def to_pred(self) -> Tensor:
        """(M,) Euclidean distance from each true point to the nearest predicted one."""
        return self.near.dist_yx[0].sqrt()


def check(pred: Tensor, gt: Tensor) -> None:
    """Raises LossValueError unless the clouds are (N, D) and (M, D), or (B, N, D) and (B, M, D), and usable."""
    for name, cloud in (("pred", pred), ("gt", gt)):
        if cloud.ndim not in (2, 3) or not cloud.is_floating_point():
            raise LossValueError(
                f"{name} must be a floating point (N, D) or (B, N, D) tensor, got {tuple(cloud.shape)} {cloud.dtype}"
            )
        if cloud.shape[-2] == 0:
            raise LossValueError(f"{name} has no points ({tuple(cloud.shape)}); a metric needs at least one")
        _check_finite(name, cloud)
    if pred.ndim != gt.ndim or pred.shape[:-2] != gt.shape[:-2] or pred.shape[-1] != gt.shape[-1]:
        raise LossValueError(
            f"pred {tuple(pred.shape)} and gt {tuple(gt.shape)} must agree in batch size and dimension"
        )
    if looks_transposed(pred, gt):
        raise LossValueError(
            f"pred {tuple(pred.shape)} and gt {tuple(gt.shape)} would be {pred.shape[-2]} points of {pred.shape[-1]} "
            "coordinates; clouds are (N, 3): use .transpose(-1, -2) on (3, N)"
        )


def check_set(name: str, clouds: Sequence[Tensor] | Tensor) -> list[Tensor]:
    """The clouds of a set, each (N_i, D). Raises LossValueError for a set that is empty or holds an unusable cloud."""
    members = list(clouds)
    if not members:
        raise LossValueError(f"{name} is an empty set; give at least one cloud")
    for k, cloud in enumerate(members):
        if not isinstance(cloud, Tensor) or cloud.ndim != 2 or not cloud.is_floating_point() or not len(cloud):
            got = f"{tuple(cloud.shape)} {cloud.dtype}" if isinstance(cloud, Tensor) else type(cloud).__name__
            raise LossValueError(f"{name}[{k}] must be a floating point (N, D) tensor with points in it, got {got}")
        _check_finite(f"{name}[{k}]", cloud)
        if cloud.shape[1] != members[0].shape[1]:
            raise LossValueError(f"{name}[{k}] has {cloud.shape[1]} coordinates, {name}[0] {members[0].shape[1]}")
    return members


def _check_finite(name: str, cloud: Tensor) -> None:
    if not cloud.isfinite().all():
        raise LossValueError(f"{name} holds NaN or Inf; drop or repair these points first")
