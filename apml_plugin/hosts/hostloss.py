"""The module that stands where a host's loss stood."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..errors import LossValueError
from ..registry import set_epoch
from .repeats import same_tensor

_Memo = tuple[nn.Module, torch.Tensor, torch.Tensor, torch.Tensor, tuple[int, ...]]


class HostLoss(nn.Module):
    """`loss(pred (B, N, 3), gt (B, M, 3))` -> 0-dim tensor on pred's device, as a host's Chamfer gives.

    Holds no parameters and no buffers: checkpoints load and save exactly as without it. own: the host's loss,
    used for stages not in `chosen`. stages: what the calls within one `get_loss` are for, in order.
    Outside of `get_loss` a call counts as the last stage. The same pair twice within one `get_loss` (FoldingNet
    and TopNet return one cloud as both coarse and fine) is computed once.
    """

    def __init__(
        self, own: nn.Module, stages: tuple[str, ...], chosen: Mapping[str, nn.Module], host_class: type
    ) -> None:
        super().__init__()
        self.own = own
        self.stages = stages
        self.chosen = nn.ModuleDict(chosen)
        self.host_class = host_class
        self.running = False
        # Without a get_loss the model calls its loss in forward, in validation, too.
        self.in_forward = not hasattr(host_class, "get_loss")
        self._call = 0
        self._memo: list[_Memo] = []

    def begin(self, epoch: int | None) -> None:
        """A `get_loss` starts: count its calls from zero and tell schedules the epoch, if it is known."""
        self.running, self._call, self._memo = True, 0, []
        if epoch is not None:
            for loss in self.chosen.values():
                set_epoch(loss, int(epoch))

    def end(self) -> None:
        """The `get_loss` is over: forget its tensors."""
        self.running, self._memo = False, []

    def forward(self, pred: torch.Tensor, gt: torch.Tensor) -> torch.Tensor:
        if not self.running and self.in_forward and not (torch.is_grad_enabled() and pred.requires_grad):
            return self.own(pred, gt)
        loss = self._next()
        if loss is self.own:
            return loss(pred, gt)
        for used, old_pred, old_gt, value, versions in self._memo:
            # After an in-place change by the host (`value += ...`) a tensor is no longer what was computed.
            fresh = used is loss and versions == _versions(old_pred, old_gt, value)
            if fresh and same_tensor(pred, old_pred) and same_tensor(gt, old_gt):
                return value.clone()
        value = loss(pred, gt)
        if value.dim() != 0:
            raise LossValueError(
                f"the loss gave a tensor of shape {tuple(value.shape)}, but {self.host_class.__name__} needs one "
                "number: use reduction: mean or reduction: sum"
            )
        if self.running:
            self._memo.append((loss, pred, gt, value, _versions(pred, gt, value)))
        return value

    def _next(self) -> nn.Module:
        call = self._call if self.running else len(self.stages) - 1
        self._call += 1
        if call < len(self.stages):
            stage = self.stages[call]
            if stage not in self.chosen:
                return self.own
            return self.chosen[stage]
        used = list(self.chosen.values())
        if len(self.chosen) == len(self.stages) and all(loss is used[0] for loss in used):
            return used[0]
        raise LossValueError(
            f"{self.host_class.__name__}.get_loss asks for its loss more than {len(self.stages)} times "
            f"({', '.join(self.stages)}), so stages cannot be told apart; give one loss for all of them"
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A whole model unpickled in a fresh process needs its class wrapped there, too."""
        super().__setstate__(state)
        from .attaching import ensure_wrapped

        ensure_wrapped(self.host_class)


def _versions(*tensors: torch.Tensor) -> tuple[int, ...]:
    """How often each was changed in place; inference tensors keep no count."""
    return tuple(0 if tensor.is_inference() else tensor._version for tensor in tensors)
