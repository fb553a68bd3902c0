"""The temperatures of Sinkhorn iterations: from the clouds' diameter down to the blur (GeomLoss' schedule)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def diameter_of(x: Tensor, y: Tensor) -> float:
    """Diagonal of the joint bounding box of (n, D) and (m, D): no two points are further apart."""
    low = torch.minimum(x.detach().amin(dim=0), y.detach().amin(dim=0))
    high = torch.maximum(x.detach().amax(dim=0), y.detach().amax(dim=0))
    return float((high - low).norm())


def temperatures(p: int, diameter: float, blur: float, scaling: float) -> list[float]:
    """``diameter^p``, then from there down by ``scaling^p`` at every step, then ``blur^p``.

    Clouds of diameter 0 (all points on one spot) start at the blur.
    """
    start = diameter if diameter > 0 else blur
    steps = np.exp(np.arange(p * np.log(start), p * np.log(blur), p * np.log(scaling)))
    return [start**p, *steps.tolist(), blur**p]


def damping(eps: float, rho: float | None) -> float:
    """Factor of a softmin where masses need not be met exactly (reach given): ``1 / (1 + eps / rho)``."""
    return 1.0 if rho is None else 1 / (1 + eps / rho)
