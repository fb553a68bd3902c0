"""What every named loss is: an nn.Module with plain numbers, no parameters and no buffers."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from apml_plugin.matching.inputs import Lengths


class PointLoss(nn.Module):
    """A loss between two batches of clouds.

    ``forward(pred (B, N, D), gt (B, M, D), pred_lengths=None, gt_lengths=None)`` gives a 0-dim tensor on the
    device of ``pred`` (or (B,) where ``reduction="none"`` is offered). Nothing of it enters a state dict, so
    that checkpoints made with another loss load strictly.
    """

    needs: ClassVar[str] = ""
    """What the loss asks for where two clouds are not enough, as its error says; empty where they are."""
    nested: ClassVar[tuple[str, ...]] = ()
    """Arguments that are losses themselves: a config gives them by name or mapping."""

    def options(self) -> dict[str, Any]:
        """The resolved parameters, in the order in which they are shown."""
        return {}

    def describe(self) -> str:
        """One line: ``APML(p_min=0.8, ...)``."""
        given = ", ".join(f"{key}={_show(value)}" for key, value in self.options().items())
        return f"{type(self).__name__}({given})"

    def extra_repr(self) -> str:
        return ", ".join(f"{key}={_show(value)}" for key, value in self.options().items())

    def set_epoch(self, epoch: int) -> None:
        """Called by hosts at the start of an epoch; only schedules listen."""

    def forward(self, pred: Tensor, gt: Tensor, pred_lengths: Lengths = None, gt_lengths: Lengths = None) -> Tensor:
        raise NotImplementedError


def _show(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
