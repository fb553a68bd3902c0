"""Our losses with the call signatures of MMDetection3D and Pointcept."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from apml_plugin.arguments import number, one_of
from apml_plugin.errors import LossArgumentError, LossValueError
from apml_plugin.functional import REDUCTIONS, matching_plan
from apml_plugin.hosts.mmengine.config import loss_from_config
from apml_plugin.hosts.mmengine.models import pad
from apml_plugin.losses.base import PointLoss
from apml_plugin.matching import Settings, backends, compute_dtype
from apml_plugin.matching.dense import root
from apml_plugin.matching.search import squared_distance


class APMLDistance(nn.Module):
    """APML where MMDetection3D configures a ``ChamferDistance``: the same call, the same pair of losses.

    ``loss_center=dict(type='APMLDistance', reduction='sum', loss_dst_weight=10.0)``. APML gives every target mass
    1, so its loss is one number for each target. It is returned where ChamferDistance returns its target loss: second.
    The first loss is 0. (Heads add both, or use only ``[1]``.)

    Args:
        reduction: ``"mean"`` or ``"sum"`` over all targets of the batch, or ``"none"``, as in ChamferDistance.
        loss_dst_weight: factor of the loss.
        loss_src_weight: accepted so that only ``type`` changes in a config; it multiplies the 0.
        p_min, threshold, iterations, eps, ties, backend: as :class:`apml_plugin.APML`. Distances are always
            Euclidean: there is no ``mode``.

    Raises:
        LossArgumentError, LossValueError: an argument of the wrong name, type or range, when built.
    """

    def __init__(
        self,
        reduction: str = "mean",
        loss_src_weight: float = 1.0,
        loss_dst_weight: float = 1.0,
        p_min: float = 0.8,
        threshold: float | str = "auto",
        iterations: int = 20,
        eps: float = 1e-8,
        ties: str = "share",
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.reduction = one_of("reduction", reduction, REDUCTIONS)
        number("loss_src_weight", loss_src_weight)
        self.loss_dst_weight = number("loss_dst_weight", loss_dst_weight)
        self.settings = Settings(p_min, threshold, iterations, eps, ties)
        self.backend = one_of("backend", backend, backends.names())

    def forward(
        self,
        source: Tensor,
        target: Tensor,
        src_weight: Tensor | float = 1.0,
        dst_weight: Tensor | float = 1.0,
        reduction_override: str | None = None,
        return_indices: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Both losses, the first of them 0.

        Args:
            source, target: (B, N, D) and (B, M, D).
            src_weight: a point of weight 0 is not matched. All other weights must be equal and have no effect: a match
                is weighted by its target.
            dst_weight: a target of weight 0 is not matched; the losses of the others are multiplied by theirs. Both
                weights: a number, or a tensor that broadcasts to (B, N) and (B, M).
            reduction_override: replaces ``reduction`` in this call.
            return_indices: must be False; soft matches have no indices.

        Returns:
            Two 0-dim tensors, or (B, N) and (B, M) for ``"none"``.

        Raises:
            LossArgumentError, LossValueError: unusable clouds or weights.
        """
        reduction = self.reduction
        if reduction_override is not None:
            reduction = one_of("reduction_override", reduction_override, REDUCTIONS)
        if return_indices:
            raise LossArgumentError(
                "return_indices=True: soft matches have no indices; apml_plugin.matching_plan(source, target) gives "
                "the plan"
            )
        sources, source_n, _ = _weighted(source, src_weight, "src_weight")
        targets, target_n, order = _weighted(target, dst_weight, "dst_weight")
        _check_alike(source, src_weight)
        costs = self._costs(sources, targets, source_n, target_n)
        if order is not None:
            costs = torch.zeros_like(costs).scatter(1, order, costs)
        losses = self.loss_dst_weight * (costs * dst_weight)
        if reduction == "none":
            return losses.new_zeros(source.shape[:2]), losses
        total = losses.sum() if reduction == "sum" or not losses.numel() else losses.mean()
        return total.new_zeros(()), total

    def _costs(self, pred: Tensor, gt: Tensor, pred_n: Tensor | None, gt_n: Tensor | None) -> Tensor:
        """(B, M): the distances of each target's matches, weighted by the plan, which is held constant."""
        with torch.autocast(pred.device.type, enabled=False):
            plan = matching_plan(
                pred, gt, **asdict(self.settings), backend=self.backend, pred_lengths=pred_n, gt_lengths=gt_n
            )
            dtype = compute_dtype(pred, gt)
            b, i, j = plan.indices()
            matched = plan.values().to(dtype) * root(squared_distance(pred.to(dtype)[b, i], gt.to(dtype)[b, j]))
            empty = torch.zeros(gt.shape[:2], dtype=dtype, device=gt.device)
            return empty.index_put((b, j), matched, accumulate=True)


class PackedLoss(nn.Module):
    """Any of our losses on Pointcept's packed clouds: all points of the batch in one tensor, and where each cloud ends.

    Args:
        loss: as ``loss=`` elsewhere, except a loss per stage: ``dict(type='APML', reduction='mean')``.

    Raises:
        UnknownLossError, LossArgumentError, LossValueError: an unusable loss, when built.
    """

    def __init__(self, loss: Any = "APML") -> None:
        super().__init__()
        self.loss = loss_from_config(loss)

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        pred_offset: Tensor | None = None,
        target_offset: Tensor | None = None,
    ) -> Tensor:
        """The loss of the batch.

        Args:
            pred, target: (n_1 + ... + n_B, D) and (m_1 + ... + m_B, D).
            pred_offset, target_offset: (B,) whole numbers, Pointcept's ``offset``: where each cloud ends. Without
                them each tensor is one cloud.

        Raises:
            LossValueError: offsets that do not fit the points or each other.
        """
        preds = _unpack(pred, pred_offset, "pred")
        targets = _unpack(target, target_offset, "target")
        if len(preds) != len(targets):
            raise LossValueError(
                f"pred_offset and target_offset must hold as many clouds, got {len(preds)} and {len(targets)}"
            )
        (pred, pred_n), (target, target_n) = pad(preds), pad(targets)
        # Losses of other projects may take only clouds.
        lengths = (
            () if pred_n is None and target_n is None and not isinstance(self.loss, PointLoss) else (pred_n, target_n)
        )
        loss: Tensor = self.loss(pred, target, *lengths)
        return loss


def _weighted(cloud: Tensor, weight: Tensor | float, name: str) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The cloud with its points of weight 0 last; (B,) the number of other points; the new order of the points."""
    if not isinstance(weight, Tensor):
        if number(name, weight) < 0:
            raise LossValueError(f"{name}={weight!r} must not be negative")
        if weight != 0:
            return cloud, None, None
        weight = cloud.new_zeros(())
    try:
        weight = weight.detach().broadcast_to(cloud.shape[:2])
    except RuntimeError:
        raise LossValueError(
            f"{name} of shape {tuple(weight.shape)} must broadcast to {tuple(cloud.shape[:2])}, a weight for each point"
        ) from None
    if not bool((torch.isfinite(weight) & (weight >= 0)).all()):
        raise LossValueError(f"{name} must hold finite numbers that are not negative")
    keep = weight != 0
    if bool(keep.all()):
        return cloud, None, None
    order = torch.argsort((~keep).to(torch.uint8), dim=1, stable=True)
    return torch.gather(cloud, 1, order[..., None].expand_as(cloud)), keep.sum(1), order


def _check_alike(source: Tensor, weight: Tensor | float) -> None:
    if isinstance(weight, Tensor) and weight.numel():
        kept = weight[weight != 0].double()
        if len(kept) and not torch.allclose(kept, kept[0].expand_as(kept), rtol=1e-4, atol=0):
            raise LossArgumentError(
                f"src_weight runs from {float(kept.min()):g} to {float(kept.max()):g}, but APML weights a match by its "
                "target: give all points to be matched the same src_weight, and put their importance in dst_weight"
            )


def _unpack(points: Tensor, offset: Tensor | None, name: str) -> list[Tensor]:
    if points.dim() != 2:
        raise LossValueError(f"{name} must have shape (points of all clouds, D), got {tuple(points.shape)}")
    if offset is None:
        return [points]
    ends = [int(end) for end in offset]
    if not ends or ends[-1] != len(points) or any(a > b for a, b in zip([0, *ends], ends, strict=False)):
        raise LossValueError(
            f"{name}_offset={ends} must hold where each cloud ends: increasing numbers, the last {len(points)}, the "
            f"number of points of {name}"
        )
    return list(torch.tensor_split(points, ends[:-1]))
