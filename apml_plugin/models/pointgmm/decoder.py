"""The hierarchical decoder: a code grows into 8 components, each splits into 4, and again."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from apml_plugin.errors import LossValueError
from apml_plugin.losses.mixture import Hierarchy, Mixture
from apml_plugin.matching.settings import number
from apml_plugin.models.layers import positive
from apml_plugin.models.pointgmm.frames import orthonormal_frames

LEVELS = (8, 32, 128, 512)
NUMBERS = 6 + 3 + 3 + 1
"""Of a component: two vectors for its frame, three roots of eigenvalues, a mean, a logit."""


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
        min_eigenvalue: what eigenvalues are bounded below by, in squared units.
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
        self.dim_z, self.dim_h, self.dim_t = positive("dim_z", dim_z), positive("dim_h", dim_h), dim_t
        if dim_h % 8:
            raise LossValueError(f"dim_h={dim_h} must be a multiple of 8, such as {max(8, dim_h - dim_h % 8)}")
        self.min_eigenvalue = number("min_eigenvalue", min_eigenvalue)
        if not 0 < self.min_eigenvalue < 1:
            raise LossValueError(f"min_eigenvalue={min_eigenvalue!r} must lie in (0, 1); 1e-6 is usual")
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
            # Components begin half as wide on each next level, on the scale of normalised clouds, and apart from each
            # other: siblings that begin alike stay alike for long.
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
        said = head(features)
        said = said.to(torch.promote_types(said.dtype, torch.float32))
        vectors, roots, means, logits = said.split([6, 3, 3, 1], dim=-1)
        frames = orthonormal_frames(vectors.unflatten(-1, (2, 3)))
        return Mixture(logits[..., 0], means, frames, roots.square() + self.min_eigenvalue)


class SiblingAttention(nn.Module):
    """Self-attention among the children of one node; a gate that starts at 0 lets it in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(width, width // 8), nn.Linear(width, width // 8)
        self.value = nn.Linear(width, width)
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, siblings: Tensor) -> Tensor:
        """(G, S, W) to the same."""
        shares = (self.query(siblings) @ self.key(siblings).mT).softmax(-1)
        return siblings + self.gate * (shares @ self.value(siblings))


def _mlp(width: int, hidden: int, out: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(inplace=True), nn.Dropout(dropout), nn.Linear(hidden, out))


def _check_levels(levels: Sequence[int]) -> tuple[int, ...]:
    given = tuple(positive("levels", size) for size in levels)
    if not given or given[0] < 2 or given[0] & (given[0] - 1):
        raise LossValueError(f"levels={list(levels)} must begin with a power of 2, at least 2, such as {list(LEVELS)}")
    if any(lower % upper or lower == upper for upper, lower in pairwise(given)):
        raise LossValueError(f"levels={list(levels)} must grow by whole factors, such as {list(LEVELS)}")
    return given
