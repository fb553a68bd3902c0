"""Rigid motions about one axis, x -> R x + t, and registration by a PointGMM that separates shape and pose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from apml_plugin.arguments import one_of, positive_whole
from apml_plugin.errors import LossValueError
from apml_plugin.losses.mixture import HGMM, Hierarchy, Mixture, PoseLoss
from apml_plugin.models.pointgmm.decoder import LEVELS, MixtureDecoder
from apml_plugin.models.pointgmm.network import PointNet

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


class Registered(NamedTuple):
    """The output of the network for a batch of clouds."""

    canonical: Hierarchy
    """The shape in its canonical frame."""
    placed: Hierarchy
    """The shape where the cloud is."""
    pose: Pose
    """From the canonical frame to the cloud."""


class PointGMMRegistration(nn.Module):
    """Rigid registration about one axis (Hertz et al., CVPR 2020).

    A shape code comes from features that no rigid motion changes, a pose code from the centred points and the shape
    code, a translation and an angle from the pose code. Every head of the decoder takes the pose code: with zeros in
    its place the decoder gives the shape in its canonical frame, with the code the shape where the cloud is.
    :meth:`loss` trains both, on clouds in their canonical frame that are moved by known poses.

    Args:
        dim_z, dim_t: lengths of the shape's and the pose's code.
        dim_h, levels, attention, dropout, min_eigenvalue: as :class:`MixtureDecoder`.
        encoder: channels of both encoders for every point.
        neighbours: of the invariant features; 40 in the paper.
        axis: what the rotation is about: "x", "y" or "z".
    """

    def __init__(
        self,
        dim_z: int = 256,
        dim_t: int = 128,
        dim_h: int = 512,
        levels: Sequence[int] = LEVELS,
        encoder: Sequence[int] = (256, 512, 1024),
        neighbours: int = 40,
        axis: str = "y",
        attention: bool = True,
        dropout: float = 0.1,
        min_eigenvalue: float = 1e-6,
    ) -> None:
        super().__init__()
        self.axis = one_of("axis", axis, AXES)
        self.neighbours = positive_whole("neighbours", neighbours)
        self.shape = PointNet(dim_z, tuple(encoder), 2 * dim_z, 1 + 3 * neighbours)
        self.place = PointNet(positive_whole("dim_t", dim_t), tuple(encoder), 2 * dim_t, 3 + dim_z)
        self.pose_head = nn.Linear(dim_t, 5)
        self.decoder = MixtureDecoder(dim_z, dim_h, levels, attention, dropout, dim_t, min_eigenvalue)

    def encode(self, clouds: Tensor) -> tuple[Tensor, Tensor, Pose]:
        """(B, N, 3) to shape codes, pose codes and poses. The clouds may lie anywhere: they are centred first."""
        code = self.shape(invariant_features(clouds, self.neighbours))
        centre = clouds.mean(1, keepdim=True)
        centred = clouds - centre
        # Scaled to the size of the code beside them, so that batch norm does not suppress the coordinates.
        radius = centred.square().sum(-1, keepdim=True).mean(1, keepdim=True).clamp_min(1e-12).sqrt()
        placed = self.place(torch.cat([2 * centred / radius, code[:, None].expand(-1, clouds.shape[1], -1)], dim=-1))
        numbers = self.pose_head(placed)
        turn = numbers[:, 3:]
        length = turn.square().sum(-1, keepdim=True)
        ahead = torch.tensor([1.0, 0.0], dtype=turn.dtype, device=turn.device)
        turn = torch.where(length > 1e-12, turn / length.clamp_min(1e-12).sqrt(), ahead)
        return code, placed, Pose(numbers[:, :3] * radius[:, 0] + centre[:, 0], turn)

    def forward(self, clouds: Tensor) -> Registered:
        """``clouds`` (B, N, 3), N above ``neighbours``. Both mixtures; the placed one moved to where the cloud is."""
        code, placed, at = self.encode(clouds)
        centre = clouds.mean(1)
        centred = self.decoder(code, placed)
        moved = Hierarchy(
            [Mixture(level.logits, level.means + centre[:, None], *level.tensors[2:]) for level in centred.levels]
        )
        return Registered(self.decoder(code), moved, at)

    def loss(self, canonical: Tensor, by: Pose, pose_loss: PoseLoss | None = None) -> Tensor:
        """``HGMM`` of the canonical clouds, of the moved ones, and the pose's error, as one number.

        Args:
            canonical: (B, N, 3). by: the poses that move them.
            pose_loss: its weights; 50 and 10 by default.
        """
        moved = move(canonical, by, self.axis)
        registered = self(moved)
        error = (PoseLoss() if pose_loss is None else pose_loss)(registered.pose, by)
        value: Tensor = HGMM()(registered.canonical, canonical) + HGMM()(registered.placed, moved) + error
        return value

    @torch.no_grad()
    def register(self, source: Tensor, target: Tensor) -> Pose:
        """(B, N, 3) and (B, M, 3) scans of the same shapes: the pose that moves each source onto its target.

        Put the network into evaluation mode first. Raises LossValueError otherwise.
        """
        if self.training:
            raise LossValueError("register() in training mode uses batch statistics and dropout: call .eval() first")
        at_source, at_target = self.encode(source)[2], self.encode(target)[2]
        return compose(at_target, inverse(at_source, self.axis), self.axis)


def invariant_features(points: Tensor, neighbours: int = 40) -> Tensor:
    """(B, N, 3) to (B, N, 1 + 3 * neighbours), for each point, with its nearest points in order of distance:

    its distance to the cloud's centroid; the distances to the neighbours; the angle at the point between each
    neighbour and the centroid; and each neighbour's smallest angle to another neighbour, seen from the point.

    Raises LossValueError where a cloud has no more points than ``neighbours``.
    """
    if points.dim() != 3 or points.shape[2] != 3 or points.shape[1] <= positive_whole("neighbours", neighbours):
        raise LossValueError(
            f"points has shape {tuple(points.shape)}, expected (B, N, 3) with more than neighbours={neighbours} points"
        )
    batch = len(points)
    with torch.no_grad():
        near = torch.cdist(points, points).topk(neighbours + 1, largest=False).indices[..., 1:]
    rows = torch.arange(batch, device=points.device)[:, None, None]
    offsets = points[rows, near] - points[:, :, None]
    inwards = points.mean(1, keepdim=True) - points
    distances, directions = _polar(offsets)
    centre, towards = _polar(inwards)
    angles = _angle((directions * towards[:, :, None]).sum(-1))
    between = directions @ directions.mT
    self_pairs = torch.eye(neighbours, dtype=torch.bool, device=points.device)
    closest = _angle(between.masked_fill(self_pairs, -1.0).amax(-1))
    return torch.cat([centre[..., None], distances, angles, closest], dim=-1)


def _polar(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Lengths and directions; the direction of a zero vector is 0."""
    square = vectors.square().sum(-1)
    length = torch.where(square > 0, square, 1.0).sqrt()
    return length * (square > 0), vectors / length[..., None]


def _angle(cosine: Tensor) -> Tensor:
    """Angles whose gradient is finite at 0 and 180 degrees."""
    return torch.acos(cosine.clamp(-1 + 1e-6, 1 - 1e-6))
