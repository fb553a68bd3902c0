"""A metric that adds up over batches and processes: `update`, `compute`, `reset`, as in TorchMetrics."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from apml_plugin.errors import LossArgumentError, LossValueError

from .table import find


class Accumulator:
    """One metric over a data set, also one spread over processes.

    ``update(pred, gt)`` takes clouds as the metric's function does (one pair or a batch), ``compute()`` gives the value
    over everything seen since the last ``reset()``, in every process the same when torch.distributed is running;
    ``acc(pred, gt)`` updates and returns the value of these clouds alone.

    Args:
        name: a metric of the table (`apml_plugin.metrics.METRICS`), such as ``CDL1``. Metrics of pairs are averaged
            over the pairs. Metrics of sets compare all ``pred`` clouds with all ``gt`` clouds at the end, and keep them
            in memory, on the CPU, until then.
        scale: factor of the value; PoinTr's tables give CDL1, CDL2 and EMD times 1000.
        options: arguments of the metric's function, such as ``threshold`` for F-Score.

    Raises:
        LossArgumentError: an unknown name or option. LossValueError: ``compute`` before ``update``.
    """

    def __init__(self, name: str, scale: float = 1.0, **options: Any) -> None:
        metric = find(name)
        for key in options:
            if key not in metric.takes:
                takes = ", ".join(metric.takes) or "none"
                raise LossArgumentError(f"{metric.name} takes no argument {key!r} (it takes {takes})")
        self.name, self.scale, self.options = metric.name, float(scale), {**metric.options, **options}
        self.higher_is_better = metric.higher_is_better
        self._function, self._of_sets = metric.function, metric.of_sets
        self.reset()

    def __repr__(self) -> str:
        given = "".join(f", {key}={value!r}" for key, value in {"scale": self.scale, **self.options}.items())
        return f"Accumulator({self.name!r}{given})"

    def reset(self) -> None:
        """Discards all updates."""
        self._sum, self._count = 0.0, 0
        self._pred: list[Tensor] = []
        self._gt: list[Tensor] = []

    def update(self, pred: Tensor, gt: Tensor) -> None:
        """Adds one pair (N, D), (M, D) or a batch (B, N, D), (B, M, D)."""
        if self._of_sets:
            self._pred += _clouds(pred)
            self._gt += _clouds(gt)
            return
        values = self._function(pred, gt, **self.options).double().reshape(-1)
        self._sum += float(values.sum())
        self._count += len(values)

    def compute(self) -> Tensor:
        """The value over all updates of all processes; 0-dim float64."""
        if self._of_sets:
            pred, gt = _gather(self._pred), _gather(self._gt)
            if pred and gt:
                return self.scale * self._function(pred, gt, **self.options)
        else:
            parts = _gather([(self._sum, self._count)])
            if count := sum(n for _, n in parts):
                return torch.tensor(self.scale * sum(total for total, _ in parts) / count, dtype=torch.float64)
        raise LossValueError(f"{self.name}: nothing to compute from; call update(pred, gt) first")

    def __call__(self, pred: Tensor, gt: Tensor) -> Tensor:
        self.update(pred, gt)
        if self._of_sets:
            return self.scale * self._function(_clouds(pred), _clouds(gt), **self.options)
        return self.scale * self._function(pred, gt, **self.options).double().mean()


def _clouds(batch: Tensor) -> list[Tensor]:
    return [cloud.detach().cpu() for cloud in (batch[None] if batch.ndim == 2 else batch)]


def _gather(mine: list[Any]) -> list[Any]:
    """The lists of all processes, in the order of their ranks."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return mine
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, mine)
    return [item for part in everyone for item in part]
