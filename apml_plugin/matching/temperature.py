"""The adaptive temperature of the one-sided softmin (APML, arXiv 2509.08104; apml.md, step 2)."""

from __future__ import annotations

import math

from torch import Tensor

from apml_plugin.matching.settings import MARGIN


def log_odds(candidates: int, p_min: float) -> float:
    """``ln((K - 1) / (1 - p_min))``: how many nats the runner-up lies below the nearest of K points.

    0 for one candidate, where the softmin is 1 whatever the temperature.
    """
    if candidates < 2:
        return 0.0
    return math.log((candidates - 1) / (1.0 - p_min))


def inverse_temperature(gap: Tensor, candidates: int, p_min: float) -> Tensor:
    """``T = -ln((1 - p_min) / (K - 1)) / (gap + margin)``; ``gap`` is second-nearest minus nearest cost."""
    return log_odds(candidates, p_min) / (gap + MARGIN)


def support_radius(nearest: Tensor, gap: Tensor, candidates: int, p_min: float, threshold: float) -> Tensor:
    """The cost below which a point's unnormalised similarity exceeds ``threshold``: a ball around it."""
    odds = log_odds(candidates, p_min)
    if odds <= 0.0:  # one candidate, or two of them with p_min = 0: every candidate has similarity 1
        return nearest.new_full(nearest.shape, math.inf)
    return nearest + (gap + MARGIN) * (math.log(1.0 / threshold) / odds)
