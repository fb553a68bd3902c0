"""PCN and FoldingNet: small completion networks, ``forward(partial (B, N, 3)) -> (coarse, fine)``."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import isqrt

import torch
from torch import Tensor, nn

from apml_plugin.arguments import positive_whole
from apml_plugin.errors import LossValueError


def per_point(channels: Sequence[int]) -> nn.Sequential:
    """The same MLP for every point, (B, channels[0], N) to (B, channels[-1], N); the last layer is linear."""
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(channels[:-1]):
        layers += [nn.Conv1d(width_in, width_out, 1), nn.BatchNorm1d(width_out), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Conv1d(channels[-2], channels[-1], 1))


def square_grid(side: int, extent: float) -> Tensor:
    """A flat grid to fold, (2, side * side), evenly spaced over [-extent, extent] in both directions."""
    # A single point lies in the middle, not at a corner.
    steps = torch.linspace(-extent, extent, side) if side > 1 else torch.zeros(1)
    return torch.stack(torch.meshgrid(steps, steps, indexing="ij")).reshape(2, side * side)


class PointEncoder(nn.Module):
    """A cloud as one feature: two PointNet stages (PCN, Yuan et al. 2018, section 4.1).

    The first stage's maximum over all points is appended to every point before the second stage, so that each point is
    seen in the context of the whole cloud. The result does not depend on the order of the points.

    Args:
        channels: length of the feature; the layers before it have a half, a quarter and an eighth of it.
    """

    def __init__(self, channels: int = 1024) -> None:
        super().__init__()
        if positive_whole("encoder_channel", channels) % 8:
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
        feature: Tensor = self.merge(torch.cat([features, whole], dim=1)).amax(dim=2)
        return feature


class PCN(nn.Module):
    """Point Completion Network (Yuan et al. 2018), in any size.

    Args:
        num_pred: points of the fine cloud, a multiple of ``grid * grid``.
        encoder_channel: length of the feature, a multiple of 8 (1024 in the paper).
        grid: points along one side of the grid folded around each coarse point (4 in the paper).
        grid_extent: half the side of that grid, in the units of the clouds.
        hidden: width of the decoder's layers; by default the feature's length for the coarse MLP and half of it
            for the folding, as in the paper.

    Raises:
        LossArgumentError, LossValueError: a size that is no whole number, or does not fit the others.
    """

    seed: Tensor

    def __init__(
        self,
        num_pred: int = 16384,
        encoder_channel: int = 1024,
        grid: int = 4,
        grid_extent: float = 0.05,
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        per_patch = positive_whole("grid", grid) ** 2
        if positive_whole("num_pred", num_pred) % per_patch:
            lower = max(per_patch, num_pred - num_pred % per_patch)
            raise LossValueError(
                f"num_pred={num_pred} must be a multiple of grid * grid = {per_patch}, such as {lower}"
            )
        self.num_pred, self.num_coarse, self.grid = num_pred, num_pred // per_patch, grid
        self.encoder = PointEncoder(encoder_channel)
        width = encoder_channel if hidden is None else positive_whole("hidden", hidden)
        self.coarse = nn.Sequential(
            nn.Linear(encoder_channel, width),
            nn.ReLU(inplace=True),
            nn.Linear(width, width),
            nn.ReLU(inplace=True),
            nn.Linear(width, 3 * self.num_coarse),
        )
        fold = max(1, width // 2)
        self.fold = per_point((encoder_channel + 3 + 2, fold, fold, 3))
        # Computed from the sizes, so not in checkpoints; as a buffer it moves with the model to a device.
        self.register_buffer("seed", square_grid(grid, grid_extent), persistent=False)

    def forward(self, partial: Tensor) -> tuple[Tensor, Tensor]:
        """``partial`` (B, N, 3) to ``coarse`` (B, num_coarse, 3) and ``fine`` (B, num_pred, 3)."""
        feature = self.encoder(partial)
        coarse = self.coarse(feature).view(-1, self.num_coarse, 3)
        batch, per_patch = len(coarse), self.grid**2
        centres = coarse.repeat_interleave(per_patch, dim=1).transpose(1, 2)
        seeds = self.seed.repeat(1, self.num_coarse).expand(batch, -1, -1)
        features = feature[:, :, None].expand(-1, -1, self.num_pred)
        fine = centres + self.fold(torch.cat([features, centres, seeds], dim=1))
        return coarse, fine.transpose(1, 2).contiguous()


class FoldingNet(nn.Module):
    """FoldingNet's decoder (Yang et al. 2018) after PCN's encoder, as completion codebases pair them.

    Args:
        num_pred: points of the cloud, a square number (2025 = 45 * 45 in the paper).
        encoder_channel: length of the feature, a multiple of 8.
        grid_extent: half the side of the grid, in the units of the clouds.
        hidden: width of the folding layers (512 in the paper); by default half the feature's length.

    Raises:
        LossArgumentError, LossValueError: a size that is no whole number, or does not fit the others.
    """

    seed: Tensor

    def __init__(
        self, num_pred: int = 16384, encoder_channel: int = 1024, grid_extent: float = 0.5, hidden: int | None = None
    ) -> None:
        super().__init__()
        side = isqrt(positive_whole("num_pred", num_pred))
        if side * side != num_pred:
            raise LossValueError(
                f"num_pred={num_pred} must be a square number, such as {side * side} or {(side + 1) ** 2}: "
                "a square grid is folded"
            )
        self.num_pred = num_pred
        self.encoder = PointEncoder(encoder_channel)
        width = max(1, encoder_channel // 2) if hidden is None else positive_whole("hidden", hidden)
        self.first = per_point((encoder_channel + 2, width, width, 3))
        self.second = per_point((encoder_channel + 3, width, width, 3))
        # Computed from the sizes, so not in checkpoints; as a buffer it moves with the model to a device.
        self.register_buffer("seed", square_grid(side, grid_extent), persistent=False)

    def forward(self, partial: Tensor) -> tuple[Tensor, Tensor]:
        """``partial`` (B, N, 3) to the clouds after the first and the second folding, both (B, num_pred, 3)."""
        features = self.encoder(partial)[:, :, None].expand(-1, -1, self.num_pred)
        seeds = self.seed.expand(len(partial), -1, -1)
        coarse = self.first(torch.cat([features, seeds], dim=1))
        fine = self.second(torch.cat([features, coarse], dim=1))
        return coarse.transpose(1, 2).contiguous(), fine.transpose(1, 2).contiguous()
