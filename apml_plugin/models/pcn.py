"""PCN: a coarse cloud from an MLP, and a small grid folded around each of its points."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from apml_plugin.errors import LossValueError
from apml_plugin.models.layers import PointEncoder, per_point, positive, square_grid


class PCN(nn.Module):
    """Point Completion Network (Yuan et al. 2018), in a size of one's choice.

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
        per_patch = positive("grid", grid) ** 2
        if positive("num_pred", num_pred) % per_patch:
            lower = max(per_patch, num_pred - num_pred % per_patch)
            raise LossValueError(
                f"num_pred={num_pred} must be a multiple of grid * grid = {per_patch}, such as {lower}"
            )
        self.num_pred, self.num_coarse, self.grid = num_pred, num_pred // per_patch, grid
        self.encoder = PointEncoder(encoder_channel)
        width = encoder_channel if hidden is None else positive("hidden", hidden)
        self.coarse = nn.Sequential(
            nn.Linear(encoder_channel, width),
            nn.ReLU(inplace=True),
            nn.Linear(width, width),
            nn.ReLU(inplace=True),
            nn.Linear(width, 3 * self.num_coarse),
        )
        fold = max(1, width // 2)
        self.fold = per_point((encoder_channel + 3 + 2, fold, fold, 3))
        # Made anew from the sizes: in no checkpoint, and it follows the model to its device.
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
