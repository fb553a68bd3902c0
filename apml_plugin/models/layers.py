"""What both networks share: the two-stage PointNet encoder, per-point layers, and the folding grid."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from apml_plugin.errors import LossArgumentError, LossValueError


def positive(name: str, value: int) -> int:
    """``value`` as a count of at least 1; a LossArgumentError or LossValueError names the argument otherwise."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise LossArgumentError(f"{name}={value!r} must be a whole number, got {type(value).__name__}")
    if value < 1:
        raise LossValueError(f"{name}={value!r} must be at least 1")
    return value


def per_point(channels: Sequence[int]) -> nn.Sequential:
    """The same MLP for every point, (B, channels[0], N) to (B, channels[-1], N); the last layer is linear."""
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(channels[:-1]):
        layers += [nn.Conv1d(width_in, width_out, 1), nn.BatchNorm1d(width_out), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Conv1d(channels[-2], channels[-1], 1))


def square_grid(side: int, extent: float) -> Tensor:
    """A flat grid to fold, (2, side * side), evenly spaced over [-extent, extent] in both directions."""
    # A single point sits in the middle rather than at a corner.
    steps = torch.linspace(-extent, extent, side) if side > 1 else torch.zeros(1)
    return torch.stack(torch.meshgrid(steps, steps, indexing="ij")).reshape(2, side * side)


class PointEncoder(nn.Module):
    """A cloud as one feature: two PointNet stages (PCN, Yuan et al. 2018, section 4.1).

    The first stage's maximum over all points is given back to every point before the second stage, so that each
    point is described in view of the whole cloud. The result does not depend on the order of the points.

    Args:
        channels: length of the feature; the layers before it have a half, a quarter and an eighth of it.
    """

    def __init__(self, channels: int = 1024) -> None:
        super().__init__()
        if positive("encoder_channel", channels) % 8:
            raise LossValueError(
                f"encoder_channel={channels} must be a multiple of 8, such as {max(8, channels - channels % 8)}"
            )
        self.channels = channels
        self.local = per_point((3, channels // 8, channels // 4))
        self.merge = per_point((channels // 2, channels // 2, channels))

    def forward(self, points: Tensor) -> Tensor:
        """``points`` (B, N, 3) to a feature (B, channels); LossValueError for any other shape or no points."""
        if points.dim() != 3 or points.shape[-1] != 3 or points.shape[1] == 0:
            raise LossValueError(
                f"partial has shape {tuple(points.shape)}, expected (B, N, 3) with at least one point; "
                "a single cloud goes in as partial[None]"
            )
        features = self.local(points.transpose(1, 2))
        whole = features.amax(dim=2, keepdim=True).expand_as(features)
        return self.merge(torch.cat([features, whole], dim=1)).amax(dim=2)
