"""Gaussian mixtures with one level or several, checked when they are built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from apml_plugin.errors import LossArgumentError, LossValueError

TOLERANCE = 1e-3
"""How far a frame may be from orthonormal, by the largest entry of ``F F' - 1``: float32 and gradcheck pass."""


@dataclass(frozen=True)
class Mixture:
    """A batch of Gaussian mixtures: component k has the density N(x; means_k, F_k' diag(eigenvalues_k) F_k).

    Args:
        logits: (B, K); the weights are their softmax.
        means: (B, K, D).
        frames: (B, K, D, D), orthonormal; row i is the axis that belongs to eigenvalue i.
        eigenvalues: (B, K, D), 0 or more: variances along the axes, in squared units of the coordinates.

    Raises:
        LossArgumentError: not tensors, or not floating point.
        LossValueError: shapes or devices that do not fit, NaN or Inf, a negative eigenvalue, a frame that is not
            orthonormal to 1e-3.
    """

    logits: Tensor
    means: Tensor
    frames: Tensor
    eigenvalues: Tensor

    def __post_init__(self) -> None:
        for name, value in zip(NAMES, self.tensors, strict=True):
            if not isinstance(value, Tensor) or not value.is_floating_point():
                got = value.dtype if isinstance(value, Tensor) else type(value).__name__
                raise LossArgumentError(f"{name} must be a floating-point torch.Tensor, got {got}")
        _check_shapes(self)
        for name, value in zip(NAMES, self.tensors, strict=True):
            if not bool(torch.isfinite(value.detach()).all()):
                raise LossValueError(f"{name} holds NaN or Inf; look for a diverged network")
        if bool((self.eigenvalues.detach() < 0).any()):
            worst = float(self.eigenvalues.detach().min())
            raise LossValueError(f"eigenvalues must be 0 or more, the least is {worst:g}: they are variances")
        frames = self.frames.detach()
        frames = frames.to(torch.promote_types(frames.dtype, torch.float32))
        off = (frames @ frames.mT - torch.eye(self.dim, dtype=frames.dtype, device=frames.device)).abs()
        tolerance = TOLERANCE if self.frames.dtype.itemsize >= 4 else 3e-2
        if off.numel() and float(off.max()) > tolerance:
            raise LossValueError(
                f"frames are not orthonormal: F F' differs from 1 by up to {float(off.max()):g}; make them with "
                "apml_plugin.models.pointgmm.orthonormal_frames"
            )

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """logits, means, frames, eigenvalues."""
        return self.logits, self.means, self.frames, self.eigenvalues

    @property
    def components(self) -> int:
        return self.logits.shape[1]

    @property
    def dim(self) -> int:
        return self.means.shape[2]

    def __len__(self) -> int:
        return self.logits.shape[0]

    def covariances(self) -> Tensor:
        """(B, K, D, D)."""
        return self.frames.mT @ (self.eigenvalues[..., None] * self.frames)

    def map(self, change: Any) -> Mixture:
        """The mixture of ``change(tensor)`` for each tensor: ``mixture.map(torch.Tensor.detach)``."""
        return Mixture(*(change(t) for t in self.tensors))

    def to(self, dtype: torch.dtype) -> Mixture:
        """The mixture in a wider dtype. Not checked again: frames rounded to half precision pass for that one alone."""
        wider = object.__new__(Mixture)
        for name, tensor in zip(NAMES, self.tensors, strict=True):
            object.__setattr__(wider, name, tensor.to(dtype))
        return wider


NAMES = ("logits", "means", "frames", "eigenvalues")


@dataclass(frozen=True)
class Hierarchy:
    """Mixtures of growing size, in which component j of one level splits into ``c`` neighbours of the next:
    ``j * c`` to ``j * c + c - 1``. Their logits compete among these siblings only; those of the first level, all.

    Raises:
        LossArgumentError, LossValueError: no levels, or sizes that do not divide.
    """

    levels: tuple[Mixture, ...]

    def __init__(self, levels: Sequence[Mixture] | Mixture) -> None:
        given = (levels,) if isinstance(levels, Mixture) else tuple(levels)
        if not given or not all(isinstance(level, Mixture) for level in given):
            raise LossArgumentError("levels must be one Mixture for each level, the smallest first")
        for upper, lower in pairwise(given):
            if len(upper) != len(lower) or upper.dim != lower.dim or lower.components % upper.components:
                raise LossValueError(
                    f"a level of {lower.components} components (batch {len(lower)}, {lower.dim} coordinates) cannot "
                    f"follow one of {upper.components} (batch {len(upper)}, {upper.dim} coordinates): each component "
                    "splits into equally many"
                )
        object.__setattr__(self, "levels", given)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Components of each level."""
        return tuple(level.components for level in self.levels)

    def __len__(self) -> int:
        return len(self.levels[0])

    def log_weights(self, level: int) -> Tensor:
        """(B, K) log-weights of a level's components among their siblings."""
        logits = self.levels[level].logits
        groups = 1 if level == 0 else self.levels[level - 1].components
        siblings = logits.reshape(len(logits), groups, -1)
        return siblings.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1).reshape(logits.shape)

    def flat(self, level: int = -1) -> Mixture:
        """One level as a mixture: its weights are the products of the weights from the root down."""
        depth = range(len(self.levels))[level]
        total = self.log_weights(0)
        for below in range(1, depth + 1):
            mine = self.log_weights(below)
            total = total.repeat_interleave(mine.shape[1] // total.shape[1], dim=1) + mine
        return Mixture(total, *self.levels[depth].tensors[1:])

    def map(self, change: Any) -> Hierarchy:
        """The hierarchy of ``change(tensor)`` for each tensor."""
        return Hierarchy([level.map(change) for level in self.levels])


@dataclass(frozen=True)
class MixtureOutput:
    """The output of a mixture model for a batch; each loss takes the part that it is about.

    Args:
        hierarchy: the mixture.
        points: (B, n, D) drawn from it, differentiable, for losses between two clouds.
        latent: mean and log-variance of a VAE's code, both (B, Z); None for a model without.
    """

    hierarchy: Hierarchy
    points: Tensor | None = None
    latent: tuple[Tensor, Tensor] | None = field(default=None)


def as_hierarchy(needs: str, given: Any) -> Hierarchy:
    """The hierarchy that a loss was given in any form; otherwise an error that says what the loss needs."""
    if isinstance(given, MixtureOutput):
        return given.hierarchy
    if isinstance(given, Hierarchy):
        return given
    if isinstance(given, Mixture):
        return Hierarchy(given)
    if isinstance(given, Sequence) and given and all(isinstance(level, Mixture) for level in given):
        return Hierarchy(given)
    got = f"a cloud {tuple(given.shape)}" if isinstance(given, Tensor) else type(given).__name__
    raise LossArgumentError(
        f"{needs}; got {got}. The model PointGMM gives a mixture; between two clouds take ChamferL2 or APML"
    )


def _check_shapes(mixture: Mixture) -> None:
    batch, components = mixture.logits.shape if mixture.logits.dim() == 2 else (-1, -1)
    dim = mixture.means.shape[-1] if mixture.means.dim() == 3 else -1
    wanted = ((batch, components), (batch, components, dim), (batch, components, dim, dim), (batch, components, dim))
    shapes = [tuple(t.shape) for t in mixture.tensors]
    if shapes != list(wanted) or components < 1 or dim < 1:
        given = ", ".join(f"{name} {shape}" for name, shape in zip(NAMES, shapes, strict=True))
        raise LossValueError(
            f"a mixture has logits (B, K), means (B, K, D), frames (B, K, D, D) and eigenvalues (B, K, D) with K and D "
            f"at least 1; got {given}"
        )
    if len({t.device for t in mixture.tensors}) > 1:
        raise LossValueError("logits, means, frames and eigenvalues must be on one device")
