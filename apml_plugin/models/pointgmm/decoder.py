"""The hierarchical decoder: a code becomes 8 components, each of which splits into 4, and so on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from apml_plugin.arguments import between, number, positive_whole
from apml_plugin.errors import LossValueError
from apml_plugin.losses.mixture import Hierarchy, Mixture

LEVELS = (8, 32, 128, 512)
NUMBERS = 6 + 3 + 3 + 1
"""Numbers of a component: two vectors for its frame, three roots of eigenvalues, a mean, a logit."""

SMALL = 1e-6
"""Vectors shorter than this, and smaller angles, define no direction; a coordinate axis replaces them."""


class MixtureDecoder(nn.Module):
    """(B, dim_z) codes to a :class:`Hierarchy`.

    The root doubles the code's features until there are as many as the first level has components. On each level a
    head reads a Gaussian from every node's feature; then the siblings attend to each other, and each node splits.

    Args:
        dim_z: length of the code.
        dim_h: width of a node's feature, a multiple of 8.
        levels: components of each level; the first a power of 2, each next a multiple of the one before.
        attention: whether siblings attend to each other before they split.
        dropout: in heads and splits.
        dim_t: length of a second code that every head sees (a pose); 0 for none.
        min_eigenvalue: lower bound of the eigenvalues, in squared units.
    """

    def __init__(
        self,
        dim_z: int = 256,
        dim_h: int = 512,
        levels: Sequence[int] = LEVELS,
        attention: bool = True,
        dropout: float = 0.1,
        dim_t: int = 0,
        min_eigenvalue: float = 1e-6,
    ) -> None:
        super().__init__()
        self.levels = _check_levels(levels)
        self.dim_z, self.dim_h, self.dim_t = positive_whole("dim_z", dim_z), positive_whole("dim_h", dim_h), dim_t
        if dim_h % 8:
            raise LossValueError(f"dim_h={dim_h} must be a multiple of 8, such as {max(8, dim_h - dim_h % 8)}")
        self.min_eigenvalue = between("min_eigenvalue", min_eigenvalue, 0, 1)
        if not 0 <= number("dropout", dropout) < 1:
            raise LossValueError(f"dropout={dropout!r} must lie in [0, 1)")
        doublings = self.levels[0].bit_length() - 1
        roots: list[nn.Module] = []
        for i in range(doublings):
            last = i + 1 == doublings
            wide = nn.Linear(dim_h if i else dim_z, 2 * dim_h)
            roots.append(wide if last else nn.Sequential(wide, nn.LayerNorm(2 * dim_h), nn.ReLU(inplace=True)))
        self.roots = nn.ModuleList(roots)
        self.heads = nn.ModuleList(_mlp(dim_h + dim_t, dim_h // 2, NUMBERS, dropout) for _ in self.levels)
        self.attention = nn.ModuleList(SiblingAttention(dim_h) if attention else nn.Identity() for _ in self.levels[1:])
        splits = [lower // upper for upper, lower in pairwise(self.levels)]
        self.splits = nn.ModuleList(_mlp(dim_h, 2 * dim_h, children * dim_h, dropout) for children in splits)
        for depth, head in enumerate(self.heads):
            # On each next level components start half as wide, on the scale of normalised clouds, and at different
            # places: siblings that start equal stay similar for long.
            assert isinstance(head, nn.Sequential)
            final = head[-1]
            assert isinstance(final, nn.Linear)
            nn.init.constant_(final.bias[6:9], 0.25 / 2**depth)
            with torch.no_grad():
                final.weight[9:12] *= 4

    def forward(self, code: Tensor, pose: Tensor | None = None) -> Hierarchy:
        """``code`` (B, dim_z); ``pose`` (B, dim_t), zeros if left out."""
        batch = len(code)
        features = code[:, None]
        for grow in self.roots:
            features = grow(features).reshape(batch, -1, self.dim_h)
        groups, levels = 1, []
        for i, head in enumerate(self.heads):
            levels.append(self._gaussians(head, features, pose))
            if i < len(self.splits):
                siblings = features.view(batch * groups, -1, self.dim_h)
                features = self.attention[i](siblings).reshape(batch, -1, self.dim_h)
                groups = features.shape[1]
                features = self.splits[i](features).reshape(batch, -1, self.dim_h)
        return Hierarchy(levels)

    def _gaussians(self, head: nn.Module, features: Tensor, pose: Tensor | None) -> Mixture:
        if self.dim_t:
            batch, nodes = features.shape[:2]
            given = features.new_zeros(batch, self.dim_t) if pose is None else pose
            features = torch.cat([features, given[:, None].expand(-1, nodes, -1)], dim=-1)
        numbers = head(features)
        numbers = numbers.to(torch.promote_types(numbers.dtype, torch.float32))
        vectors, roots, means, logits = numbers.split([6, 3, 3, 1], dim=-1)
        frames = orthonormal_frames(vectors.unflatten(-1, (2, 3)))
        return Mixture(logits[..., 0], means, frames, roots.square() + self.min_eigenvalue)


class SiblingAttention(nn.Module):
    """Self-attention among the children of one node, scaled by a gate that starts at 0."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(width, width // 8), nn.Linear(width, width // 8)
        self.value = nn.Linear(width, width)
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, siblings: Tensor) -> Tensor:
        """(G, S, W) to the same."""
        shares = (self.query(siblings) @ self.key(siblings).mT).softmax(-1)
        attended: Tensor = siblings + self.gate * (shares @ self.value(siblings))
        return attended


def _mlp(width: int, hidden: int, out: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(inplace=True), nn.Dropout(dropout), nn.Linear(hidden, out))


def _check_levels(levels: Sequence[int]) -> tuple[int, ...]:
    given = tuple(positive_whole("levels", size) for size in levels)
    if not given or given[0] < 2 or given[0] & (given[0] - 1):
        raise LossValueError(f"levels={list(levels)} must begin with a power of 2, at least 2, such as {list(LEVELS)}")
    if any(lower % upper or lower == upper for upper, lower in pairwise(given)):
        raise LossValueError(f"levels={list(levels)} must grow by whole factors, such as {list(LEVELS)}")
    return given


def orthonormal_frames(vectors: Tensor) -> Tensor:
    """(..., 3, 3) right-handed frames, rows orthonormal, from (..., 2, 3): Gram-Schmidt and a cross product.

    By Gram-Schmidt and a cross product: the first row points along the first vector, the second lies in their plane.
    A third vector could only change the sign of the third row, which makes no difference to a Gaussian. Where vectors
    are 0 or parallel, coordinate axes replace the missing directions, and the vectors get no gradient there.
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
    second = _unit(_reject(second, first), across)  # twice, because nearly parallel vectors lose digits the first time
    return torch.stack([first, second, torch.linalg.cross(first, second)], dim=-2)


def _reject(vector: Tensor, axis: Tensor) -> Tensor:
    return vector - (vector * axis).sum(-1, keepdim=True) * axis


def _unit(vector: Tensor, fallback: Tensor) -> Tensor:
    """``vector`` of length 1, or the fallback's direction where it is too short. The fallback must not be short."""
    # Scaled first, so that squares neither overflow nor vanish.
    largest = vector.detach().abs().amax(-1, keepdim=True)
    good = largest > SMALL
    chosen = torch.where(good, vector / torch.where(good, largest, 1.0), fallback)
    return chosen / chosen.square().sum(-1, keepdim=True).sqrt()
