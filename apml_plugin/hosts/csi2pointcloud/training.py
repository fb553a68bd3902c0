"""The loss object of a patched script: the YAML's loss in training, the host's own everywhere else."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ...announce import announce
from ...arguments import number
from ...chosen import chosen_loss
from ...errors import HostError, LossArgumentError, LossValueError
from ...losses import PerStage, Schedule
from ...registry import build_loss, describe, set_epoch
from .. import guard
from ..calls import building
from .reading import WEIGHTS


@dataclass(frozen=True)
class Wanted:
    """What a run asks for. matching: replaces Chamfer, or None. weights: those named. where: the loss's source."""

    matching: nn.Module | None
    weights: dict[str, float]
    where: str

    @property
    def anything(self) -> bool:
        return self.matching is not None or bool(self.weights)


def wanted(config: Any) -> Wanted:
    """Read `loss:`, `loss_opts:` and the two weights. Raises what building the loss raises, naming the key."""
    with building():
        return _wanted(config if isinstance(config, Mapping) else {})


def _wanted(given: Mapping[str, Any]) -> Wanted:
    value, opts, where = chosen_loss(given.get("loss"), given.get("loss_opts"))
    if value is None and opts is not None:
        raise LossArgumentError(f"loss_opts={opts!r} is given without loss:; write loss: APML beside it")
    weights = {key: _weight(key, given[key]) for key in WEIGHTS if given.get(key) is not None}
    if value is None:
        return Wanted(None, weights, where)
    matching = build_loss(value, opts)
    if isinstance(matching, PerStage):
        raise LossValueError(
            f"loss: {value!r} names stages ({', '.join(matching.names)}), but this host predicts one cloud: write "
            "loss: APML or a weighted sum"
        )
    if any(getattr(part, "reduction", None) == "none" for part in matching.modules()):
        raise LossValueError("loss: reduction: none gives one value per pair, this host needs one: write mean or sum")
    return Wanted(matching, weights, where)


def with_loss(own: Any, config: Any) -> Any:
    """`own`, or a TrainingLoss around it if the YAML names a loss or a weight. Prints one line then."""
    asked = wanted(config)
    if not asked.anything or isinstance(own, TrainingLoss):
        return own
    missing = [name for name in WEIGHTS if not hasattr(own, name)]
    if missing:
        raise HostError(
            f"the script's loss {type(own).__name__} has no {' and no '.join(missing)}, so its Chamfer term cannot be "
            "separated from the rest; remove loss: from the YAML, or call apml_plugin.APML in train_epoch yourself"
        )
    result = TrainingLoss(own, asked.matching, **asked.weights)
    source = f" (loss: from {asked.where})" if asked.where else ""
    if asked.matching is not None:
        guard.arm(f"loss: (from {asked.where}) asks for {describe(asked.matching)}")
    announce(f"[apml] {type(own).__name__} trains with {result.describe()}{source}; validation keeps its Chamfer")
    return result


class TrainingLoss(nn.Module):
    """`loss(pred (B, N, 3), gt (B, M, 3), features=None)` -> 0-dim, as the host's loss class is called.

    A call counts as training when gradients are on and `pred` needs one; it gives `chamfer_weight * matching +
    regularization_weight * (the host's regulariser of the features)`. Every other call is the host's loss with these
    weights, which default to those of `own`: validation keeps Chamfer.

    own: the host's loss, left as it is. matching: None keeps Chamfer in training too.
    """

    def __init__(
        self,
        own: nn.Module,
        matching: nn.Module | None,
        chamfer_weight: float | None = None,
        regularization_weight: float | None = None,
    ) -> None:
        super().__init__()
        self.matching = matching
        self.chamfer_weight = float(own.chamfer_weight if chamfer_weight is None else chamfer_weight)  # type: ignore[arg-type]
        kept = own.regularization_weight if regularization_weight is None else regularization_weight
        self.regularization_weight = float(kept)  # type: ignore[arg-type]
        self.host = _with_weights(own, self.chamfer_weight, self.regularization_weight)
        self.regulariser = _with_weights(own, 0.0, self.regularization_weight)
        self._lengths: torch.Tensor | None = None
        self._seen: torch.Size | None = None
        self._epoch_known = False

    def describe(self) -> str:
        term = "its Chamfer" if self.matching is None else f"({describe(self.matching)} in place of Chamfer)"
        beside = f" + {self.regularization_weight:g} * its regulariser" if self.regularization_weight else ""
        return f"{self.chamfer_weight:g} * {term}{beside}"

    def see(self, gt: torch.Tensor, epoch: int | None = None) -> None:
        """Takes a batch as it was collated: zeros at the end of a cloud are padding, not points.

        Must be called before the batch is standardised, because padding is not zero afterwards.
        """
        self._lengths, self._seen = real_lengths(gt), gt.shape
        if epoch is not None and self.matching is not None:
            self._epoch_known = True
            set_epoch(self.matching, int(epoch))

    def forward(self, pred: torch.Tensor, gt: torch.Tensor, features: torch.Tensor | None = None) -> torch.Tensor:
        if not (torch.is_grad_enabled() and pred.requires_grad):
            return self.host(pred, gt, features)
        lengths = self._lengths if gt.shape == self._seen else None
        self._lengths = self._seen = None
        if self.matching is None:
            return self.host(pred, gt, features)
        if not self._epoch_known and any(isinstance(part, Schedule) for part in self.matching.modules()):
            raise LossValueError("loss: a Schedule needs the epoch, which this script does not give; use a fixed loss")
        value = self.matching(pred, gt, gt_lengths=lengths) if lengths is not None else self.matching(pred, gt)
        # As in the host, the weights apply only if there are two terms.
        if features is None:
            return value
        value = self.chamfer_weight * value
        if self.regularization_weight:
            # The host's formula for one point and itself: Chamfer is zero, so the regulariser remains.
            point = gt[:, :1].detach()
            value = value + self.regulariser(point, point, features)
        return value


def real_lengths(gt: torch.Tensor) -> torch.Tensor | None:
    """(B,) int64: points before the zeros at each cloud's end; None where no cloud of (B, M, 3) ends in zeros."""
    real = (gt != 0).any(dim=-1)
    if gt.shape[1] == 0 or bool(real[:, -1].all()):
        return None
    counted = real * torch.arange(1, gt.shape[1] + 1, device=gt.device)
    return counted.amax(dim=1)


def _with_weights(own: nn.Module, chamfer: float, regularization: float) -> nn.Module:
    result = copy.copy(own)
    result.chamfer_weight, result.regularization_weight = chamfer, regularization  # type: ignore[assignment]
    return result


def _weight(key: str, value: Any) -> float:
    result = number(key, value)
    if not 0 <= result < math.inf:
        raise LossValueError(f"{key}={value!r} must be finite and not negative; 0 switches its term off")
    return result
