"""Weights of points: shape, sign and mass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from apml_plugin.errors import LossArgumentError, LossValueError

MASS_TOLERANCE = 1e-3
"""Largest relative difference of two masses that still counts as equal: float16 weights sum no better."""


def check_weights(name: str, weights: Any, cloud: Tensor, lengths: list[int] | None) -> Tensor | None:
    """(B, N) weights for the points of (B, N, D), or None.

    Raises:
        LossArgumentError, LossValueError: not floating point, another shape or device, negative, NaN, all 0.
    """
    if weights is None:
        return None
    if not isinstance(weights, Tensor) or not weights.is_floating_point():
        got = weights.dtype if isinstance(weights, Tensor) else type(weights).__name__
        raise LossArgumentError(f"{name} must be a floating-point tensor of shape (B, N), got {got}")
    batch, n = cloud.shape[:2]
    if weights.shape == (batch, n, 1):
        weights = weights[..., 0]
    if weights.shape != (batch, n):
        raise LossValueError(f"{name} must have shape {(batch, n)}, one for each point, got {tuple(weights.shape)}")
    if weights.device != cloud.device:
        raise LossValueError(f"{name} is on {weights.device} and its points on {cloud.device}: move one")
    given = weights.detach()
    if lengths is not None:
        inside = torch.arange(n, device=given.device) < torch.tensor(lengths, device=given.device)[:, None]
        given = given.where(inside, 0)
    if not bool(torch.isfinite(given).all()):
        raise LossValueError(f"{name} holds NaN or Inf")
    if bool((given < 0).any()):
        raise LossValueError(f"{name} must not be negative, got {float(given.min()):g}")
    empty = (given.sum(dim=1) <= 0).tolist()
    for b, nothing in enumerate(empty):
        if nothing and n and (lengths is None or lengths[b]):
            raise LossValueError(f"{name}[{b}] is 0 for every point; at least one must have weight")
    return weights


def same_mass(pair: int, a: Tensor, b: Tensor, remedy: str = "divide each by its sum") -> None:
    """Refuses two clouds of different mass where all of it has to be moved."""
    left, right = float(a.detach().sum()), float(b.detach().sum())
    if abs(left - right) > MASS_TOLERANCE * max(left, right):
        raise LossValueError(
            f"the weights of pair {pair} sum to {left:g} (pred) and {right:g} (gt): without reach= all mass must "
            f"find a place; {remedy}, or give reach="
        )
