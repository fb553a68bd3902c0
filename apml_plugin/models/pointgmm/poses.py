"""Rigid motions about one axis: (cos, sin) of an angle and a translation, x -> R x + t."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from apml_plugin.errors import LossValueError

AXES = ("x", "y", "z")


class Pose(NamedTuple):
    """Motions x -> R(turn) x + shift of a batch; as a pair (shift, turn) it is what ``PoseLoss`` takes."""

    shift: Tensor  # (B, 3)
    turn: Tensor  # (B, 2): cos and sin

    @property
    def degrees(self) -> Tensor:
        """(B,) angles in (-180, 180]."""
        return torch.rad2deg(torch.atan2(self.turn[:, 1], self.turn[:, 0]))


def pose(degrees: Tensor, shift: Tensor | None = None) -> Pose:
    """A pose from angles (B,) and translations (B, 3), none by default."""
    radians = torch.deg2rad(degrees)
    turn = torch.stack([radians.cos(), radians.sin()], dim=-1)
    return Pose(turn.new_zeros(len(turn), 3) if shift is None else shift, turn)


def random_pose(batch: int, reach: float = 0.2, generator: torch.Generator | None = None) -> Pose:
    """Angles uniform over the circle, translations uniform in a cube of half side ``reach``."""
    angle = 2 * math.pi * torch.rand(batch, generator=generator)
    shift = reach * (2 * torch.rand(batch, 3, generator=generator) - 1)
    return Pose(shift, torch.stack([angle.cos(), angle.sin()], dim=-1))


def rotation(turn: Tensor, axis: str) -> Tensor:
    """(B, 3, 3) rotation matrices about ``axis`` ("x", "y" or "z") from (cos, sin) (B, 2)."""
    if axis not in AXES:
        raise LossValueError(f"axis={axis!r} must be one of 'x', 'y', 'z'")
    cos, sin = turn.unbind(-1)
    one, none = torch.ones_like(cos), torch.zeros_like(cos)
    k = AXES.index(axis)
    i, j = (k + 1) % 3, (k + 2) % 3
    entries = {(k, k): one, (i, i): cos, (j, j): cos, (j, i): sin, (i, j): -sin}
    rows = [torch.stack([entries.get((r, c), none) for c in range(3)], dim=-1) for r in range(3)]
    return torch.stack(rows, dim=-2)


def move(points: Tensor, by: Pose, axis: str) -> Tensor:
    """(B, N, 3) points moved by a pose each."""
    return points @ rotation(by.turn, axis).mT + by.shift[:, None]


def compose(after: Pose, before: Pose, axis: str) -> Pose:
    """The pose that moves by ``before``, then by ``after``."""
    a, b = after.turn, before.turn
    turn = torch.stack([a[:, 0] * b[:, 0] - a[:, 1] * b[:, 1], a[:, 1] * b[:, 0] + a[:, 0] * b[:, 1]], dim=-1)
    shift = (rotation(a, axis) @ before.shift[..., None])[..., 0] + after.shift
    return Pose(shift, turn)


def inverse(given: Pose, axis: str) -> Pose:
    """The pose that takes back ``given``."""
    turn = torch.stack([given.turn[:, 0], -given.turn[:, 1]], dim=-1)
    return Pose(-(rotation(turn, axis) @ given.shift[..., None])[..., 0], turn)


def angle_between(one: Pose, other: Pose) -> Tensor:
    """(B,) absolute differences of the angles in degrees, 0 to 180."""
    cos = (one.turn * other.turn).sum(-1)
    sin = one.turn[:, 1] * other.turn[:, 0] - one.turn[:, 0] * other.turn[:, 1]
    return torch.rad2deg(torch.atan2(sin.abs(), cos))
