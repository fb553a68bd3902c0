"""Random mixtures, and their likelihoods from torch.distributions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from apml_plugin.losses.mixture import Hierarchy, Mixture


def random_mixture(
    components: int, batch: int = 2, dim: int = 3, seed: int = 0, dtype: torch.dtype = torch.float64
) -> Mixture:
    """Variances from 0.01 to 1."""
    g = torch.Generator().manual_seed(seed)
    frames = torch.linalg.qr(torch.randn(batch, components, dim, dim, generator=g, dtype=dtype)).Q
    return Mixture(
        torch.randn(batch, components, generator=g, dtype=dtype),
        torch.randn(batch, components, dim, generator=g, dtype=dtype),
        frames,
        0.01 + 0.99 * torch.rand(batch, components, dim, generator=g, dtype=dtype),
    )


def random_hierarchy(sizes: tuple[int, ...] = (4, 8, 24), seed: int = 0, **options: object) -> Hierarchy:
    return Hierarchy([random_mixture(k, seed=seed + i, **options) for i, k in enumerate(sizes)])


def reference(mixture: Mixture) -> MixtureSameFamily:
    """One batch of distributions, by PyTorch's own classes."""
    normal = MultivariateNormal(mixture.means, covariance_matrix=mixture.covariances())
    return MixtureSameFamily(Categorical(logits=mixture.logits), normal)


def reference_nll(mixture: Mixture, points: Tensor) -> Tensor:
    """(B, N)."""
    return -reference(mixture).log_prob(points.transpose(0, 1)).transpose(0, 1)
