"""FoldingNet: one flat grid folded twice into the shape."""

from __future__ import annotations

from math import isqrt

import torch
from torch import Tensor, nn

from apml_plugin.errors import LossValueError
from apml_plugin.models.layers import PointEncoder, per_point, positive, square_grid


class FoldingNet(nn.Module):
    """FoldingNet's decoder (Yang et al. 2018) behind PCN's encoder, as completion codebases pair them.

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
        side = isqrt(positive("num_pred", num_pred))
        if side * side != num_pred:
            raise LossValueError(
                f"num_pred={num_pred} must be a square number, such as {side * side} or {(side + 1) ** 2}: "
                "a square grid is folded"
            )
        self.num_pred = num_pred
        self.encoder = PointEncoder(encoder_channel)
        width = max(1, encoder_channel // 2) if hidden is None else positive("hidden", hidden)
        self.first = per_point((encoder_channel + 2, width, width, 3))
        self.second = per_point((encoder_channel + 3, width, width, 3))
        # Made anew from the sizes: in no checkpoint, and it follows the model to its device.
        self.register_buffer("seed", square_grid(side, grid_extent), persistent=False)

    def forward(self, partial: Tensor) -> tuple[Tensor, Tensor]:
        """``partial`` (B, N, 3) to the clouds after the first and the second folding, both (B, num_pred, 3)."""
        features = self.encoder(partial)[:, :, None].expand(-1, -1, self.num_pred)
        seeds = self.seed.expand(len(partial), -1, -1)
        coarse = self.first(torch.cat([features, seeds], dim=1))
        fine = self.second(torch.cat([features, coarse], dim=1))
        return coarse.transpose(1, 2).contiguous(), fine.transpose(1, 2).contiguous()
