"""The clouds that are timed: the same points on every device and in every dtype."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

CLOUDS = ("sphere", "blob", "cube")

NOISE = 0.02
"""Of a prediction on the sphere: what a trained network is off by."""

SIGMA = 0.05
"""Of the blob: what an untrained network predicts."""


def clouds(kind: str, batch: int, points: int, dtype: torch.dtype, device: str, seed: int = 0) -> tuple[Tensor, Tensor]:
    """pred and gt, (batch, points, 3) each.

    sphere: gt on the unit sphere, pred the same points with normal noise. blob: pred around the origin, gt on the
    sphere. cube: both uniform in the unit cube.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw() -> Tensor:
        return torch.randn(batch, points, 3, generator=generator, dtype=torch.float64)

    if kind == "cube":
        pred, gt = (torch.rand(batch, points, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    else:
        gt = normalize(draw(), dim=-1)
        pred = SIGMA * draw() if kind == "blob" else gt + NOISE * draw()
    return pred.to(device, dtype), gt.to(device, dtype)
