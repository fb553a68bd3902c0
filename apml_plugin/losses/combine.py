"""Losses made of losses: a weighted sum, one per stage, a blend by epoch."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from apml_plugin.arguments import number
from apml_plugin.errors import LossArgumentError, LossValueError
from apml_plugin.losses.base import PointLoss, declare, describe
from apml_plugin.matching import Lengths


class _Combined(PointLoss):
    def options(self) -> dict[str, Any]:
        return {}  # the parts are modules, and shown as such


class WeightedSum(_Combined):
    """A weighted sum of losses: ``sum_k weight_k * loss_k(pred, gt)``."""

    def __init__(self, losses: Sequence[nn.Module], weights: Sequence[float]) -> None:
        super().__init__()
        if not losses or len(losses) != len(weights):
            raise LossArgumentError(
                f"a weighted sum needs as many weights as losses and at least one, got {len(losses)} losses and "
                f"{len(weights)} weights"
            )
        self.losses = nn.ModuleList(losses)
        self.weights = [number("weight", weight) for weight in weights]
        if not any(self.weights):
            raise LossValueError(f"weights={list(weights)!r} are all 0: this loss would train nothing")

    def describe(self) -> str:
        terms = zip(self.weights, self.losses, strict=True)
        return " + ".join(f"{weight:g} * {describe(loss)}" for weight, loss in terms)

    def forward(self, pred: Tensor, gt: Tensor, pred_lengths: Lengths = None, gt_lengths: Lengths = None) -> Tensor:
        pairs = zip(self.weights, self.losses, strict=True)
        terms: list[Tensor] = [weight * loss(pred, gt, pred_lengths, gt_lengths) for weight, loss in pairs]
        return functools.reduce(Tensor.add, terms)


class PerStage(_Combined):
    """One loss for each stage of a host, by the host's names for them (``coarse``, ``fine``, ...).

    A stage that is not named keeps the host's own loss. Hosts call :meth:`stage`.
    """

    def __init__(self, stages: Mapping[str, nn.Module]) -> None:
        super().__init__()
        # A ModuleDict rejects keys that are names of its methods; with the prefix none is.
        self._stages = nn.ModuleDict({f"stage_{name}": loss for name, loss in stages.items()})
        self.names: tuple[str, ...] = tuple(stages)

    def stage(self, name: str) -> nn.Module | None:
        """The loss for a stage, or None if the YAML names none."""
        return self._stages[f"stage_{name}"] if name in self.names else None

    def describe(self) -> str:
        return ", ".join(f"{name}: {describe(self._stages[f'stage_{name}'])}" for name in self.names)

    def forward(self, pred: Tensor, gt: Tensor, pred_lengths: Lengths = None, gt_lengths: Lengths = None) -> Tensor:
        raise LossArgumentError(
            f"a loss per stage ({', '.join(self.names)}) cannot be called as one loss: ask for a stage with "
            ".stage(name), or give a single loss"
        )


@declare(nested=("first", "last"))
class Schedule(_Combined):
    """Blends linearly from one loss to another over the epochs ``start`` to ``end``.

    Before ``start`` it is ``first`` alone, from ``end`` on ``last`` alone; the one with weight 0 is not
    computed. Hosts pass the epoch through ``set_epoch``; until then the epoch is 0.

    Args:
        first, last: losses. YAML may say ``from`` and ``to``; Python has the keyword ``from``.
        start, end: epochs, ``start <= end``.
    """

    aliases: ClassVar = {"from": "first", "to": "last"}

    def __init__(self, first: nn.Module, last: nn.Module, start: float = 0, end: float = 10) -> None:
        super().__init__()
        self.first, self.last = first, last
        self.start, self.end = number("start", start), number("end", end)
        if self.start > self.end:
            raise LossValueError(f"start={start!r} must not lie after end={end!r}")
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = int(epoch)

    @property
    def share(self) -> float:
        """How much of the loss is ``last`` at this epoch, in [0, 1]."""
        if self.epoch >= self.end:
            return 1.0
        return max(0.0, (self.epoch - self.start) / (self.end - self.start))

    def describe(self) -> str:
        return f"{describe(self.first)} -> {describe(self.last)} over epochs {self.start:g} to {self.end:g}"

    def forward(self, pred: Tensor, gt: Tensor, pred_lengths: Lengths = None, gt_lengths: Lengths = None) -> Tensor:
        share = min(max(self.share, 0.0), 1.0)
        # At the ends the other loss is not computed: it may fail or cost much.
        weighted = [(weight, loss) for weight, loss in ((1.0 - share, self.first), (share, self.last)) if weight]
        terms: list[Tensor] = [weight * loss(pred, gt, pred_lengths, gt_lengths) for weight, loss in weighted]
        return functools.reduce(Tensor.add, terms)
