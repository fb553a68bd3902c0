"""A small Point Completion Network (Yuan et al. 2018): a global code, a coarse cloud, a patch around each point."""

import torch
from extensions.chamfer_dist import ChamferDistanceL2
from torch import nn

from .build import MODELS

GRID = 2
"""Points along a side of the patch that each coarse point unfolds into."""


@MODELS.register_module()
class PCN(nn.Module):
    """num_pred points (B, num_pred, 3) and num_pred / 4 coarse ones from a partial cloud (B, N, 3)."""

    patch: torch.Tensor

    def __init__(self, config):
        super().__init__()
        width = config.encoder_channel
        if config.num_pred % GRID**2:
            raise ValueError(f"num_pred={config.num_pred} must be a multiple of {GRID**2}")
        self.num_coarse = config.num_pred // GRID**2
        self.first_conv = nn.Sequential(
            nn.Conv1d(3, 64, 1), nn.BatchNorm1d(64), nn.ReLU(inplace=True), nn.Conv1d(64, 128, 1)
        )
        self.second_conv = nn.Sequential(
            nn.Conv1d(256, 256, 1), nn.BatchNorm1d(256), nn.ReLU(inplace=True), nn.Conv1d(256, width, 1)
        )
        self.mlp = nn.Sequential(
            nn.Linear(width, 512),
            nn.ReLU(inplace=True),
            nn.Linear(512, 512),
            nn.ReLU(inplace=True),
            nn.Linear(512, 3 * self.num_coarse),
        )
        self.final_conv = nn.Sequential(
            nn.Conv1d(width + 5, 128, 1),
            nn.BatchNorm1d(128),
            nn.ReLU(inplace=True),
            nn.Conv1d(128, 64, 1),
            nn.BatchNorm1d(64),
            nn.ReLU(inplace=True),
            nn.Conv1d(64, 3, 1),
        )
        line = torch.linspace(-1, 1, GRID)
        patch = torch.stack(torch.meshgrid(line, line, indexing="ij")).reshape(1, 2, 1, GRID**2)
        self.register_buffer("patch", patch, persistent=False)
        self.build_loss_func()

    def build_loss_func(self):
        self.loss_func = ChamferDistanceL2()

    def get_loss(self, ret, gt, epoch=0):
        return self.loss_func(ret[0], gt), self.loss_func(ret[1], gt)

    def forward(self, partial):
        batch, n = partial.shape[:2]
        points = self.first_conv(partial.transpose(1, 2))
        code = points.max(2, keepdim=True).values.expand(-1, -1, n)
        code = self.second_conv(torch.cat([code, points], 1)).max(2).values
        coarse = self.mlp(code).view(batch, self.num_coarse, 3)
        centres = coarse.transpose(1, 2).unsqueeze(3).expand(-1, -1, -1, GRID**2)
        patch = self.patch.expand(batch, -1, self.num_coarse, -1)
        codes = code[:, :, None, None].expand(-1, -1, self.num_coarse, GRID**2)
        fine = self.final_conv(torch.cat([codes, patch, centres], 1).flatten(2)) + centres.flatten(2)
        return coarse, fine.transpose(1, 2).contiguous()
