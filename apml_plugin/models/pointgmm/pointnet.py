"""PointNet (Qi et al. 2017) without its input transform: a cloud as one code."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from apml_plugin.errors import LossValueError
from apml_plugin.models.layers import positive


class PointNet(nn.Module):
    """(B, N, C) points to a code (B, dim_out), whatever their order.

    Args:
        dim_out: length of the code.
        widths: channels of the layers every point goes through before the maximum over all points.
        hidden: width of the layer after it.
        dim_in: C.
    """

    def __init__(
        self, dim_out: int = 256, widths: Sequence[int] = (64, 128, 1024), hidden: int = 512, dim_in: int = 3
    ) -> None:
        super().__init__()
        channels = [positive("dim_in", dim_in), *(positive("widths", width) for width in widths)]
        if len(channels) < 2:
            raise LossValueError("widths is empty; PointNet's are (64, 128, 1024)")
        self.dim_in = dim_in
        layers: list[nn.Module] = []
        for i, (one, other) in enumerate(pairwise(channels)):
            layers += [nn.Conv1d(one, other, 1), nn.BatchNorm1d(other)]
            if i + 2 < len(channels):
                layers.append(nn.ReLU(inplace=True))
        self.local = nn.Sequential(*layers)
        self.merge = nn.Sequential(
            nn.Linear(channels[-1], positive("hidden", hidden)),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, positive("dim_out", dim_out)),
        )

    def forward(self, points: Tensor) -> Tensor:
        """LossValueError for other shapes, no points, or one cloud alone in training."""
        if points.dim() != 3 or points.shape[2] != self.dim_in or points.shape[1] == 0:
            raise LossValueError(
                f"points has shape {tuple(points.shape)}, expected (B, N, {self.dim_in}) with at least one point; a "
                "single cloud goes in as points[None]"
            )
        if self.training and len(points) < 2:
            raise LossValueError(
                "a batch of one cloud cannot train PointNet's batch norm: use a batch size of 2 or more and drop_last"
            )
        return self.merge(self.local(points.transpose(1, 2)).amax(2))
