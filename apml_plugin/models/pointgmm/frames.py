"""Orthonormal frames from two vectors each, with finite values and gradients whatever the vectors are."""

from __future__ import annotations

import torch
from torch import Tensor

from apml_plugin.errors import LossValueError

SMALL = 1e-6
"""Vectors shorter than this, and angles smaller, do not define a direction; a coordinate axis stands in."""


def orthonormal_frames(vectors: Tensor) -> Tensor:
    """(..., 3, 3) right-handed frames, rows orthonormal, from (..., 2, 3): Gram-Schmidt and a cross product.

    The first row points along the first vector, the second lies in the plane of both. A third vector could only turn
    the third row around, which no Gaussian notices. Vectors that are 0 or parallel give a frame with a coordinate
    axis in the place of what they leave open; no gradient goes to them there.
    """
    if vectors.shape[-2:] != (2, 3):
        raise LossValueError(f"vectors has shape {tuple(vectors.shape)}, expected (..., 2, 3)")
    a, b = vectors.unbind(-2)
    axes = torch.eye(3, dtype=a.dtype, device=a.device)
    first = _unit(a, axes[0].expand_as(a))
    spare = axes[first.detach().abs().argmin(-1)]
    b = _unit(b, spare)
    across = _reject(_reject(spare, first), first)
    second = _unit(_reject(b, first), across)
    second = _unit(_reject(second, first), across)  # twice: nearly parallel vectors lose digits at the first
    return torch.stack([first, second, torch.linalg.cross(first, second)], dim=-2)


def _reject(vector: Tensor, axis: Tensor) -> Tensor:
    return vector - (vector * axis).sum(-1, keepdim=True) * axis


def _unit(vector: Tensor, fallback: Tensor) -> Tensor:
    """``vector`` of length 1, or the fallback's direction where it is too short. The fallback is never short."""
    # Scaled first, so that squares neither overflow nor vanish.
    largest = vector.detach().abs().amax(-1, keepdim=True)
    good = largest > SMALL
    chosen = torch.where(good, vector / torch.where(good, largest, 1.0), fallback)
    return chosen / chosen.square().sum(-1, keepdim=True).sqrt()
