"""Clouds and slow definitions that the tests of GeomLoss' losses share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from apml_plugin.losses.geom import Energy, Gaussian, HausdorffDivergence, Laplacian, Sinkhorn
from apml_plugin.losses.geom.engine import geomloss_missing, keops_missing

KINDS: dict[str, type] = {"sinkhorn": Sinkhorn, "energy": Energy, "gaussian": Gaussian, "laplacian": Laplacian}

EVERY = [
    Sinkhorn(blur=0.3),
    Sinkhorn(blur=0.3, p=1, debias=False),
    Sinkhorn(blur=0.3, reach=0.5),
    Energy(),
    Gaussian(blur=0.3),
    Laplacian(blur=0.3),
    HausdorffDivergence(blur=0.3),
]

needs_geomloss = pytest.mark.skipif(geomloss_missing() is not None, reason="needs geomloss")
needs_keops = pytest.mark.skipif(keops_missing() is not None, reason="needs geomloss, pykeops and a C++ compiler")


def golden() -> tuple[Tensor, Tensor]:
    """The clouds of the golden values, (1, 64, 3) and (1, 96, 3)."""
    i, j = torch.arange(64, dtype=torch.float64), torch.arange(96, dtype=torch.float64)
    x = torch.stack((torch.sin(0.7 * i), torch.cos(1.19 * i), torch.sin(0.21 * i + 1)), dim=-1)
    y = torch.stack((0.1 + torch.sin(0.71 * j), torch.cos(1.207 * j), torch.sin(0.213 * j + 1)), dim=-1)
    return x[None], y[None]


def pair(n: int, m: int, batch: int = 1, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, n, 3, dtype=torch.float64, generator=generator)
    y = torch.randn(batch, m, 3, dtype=torch.float64, generator=generator) + 0.2
    return x, y


def floored(x: Tensor, y: Tensor) -> Tensor:
    """GeomLoss' tensorized distance: never below 1e-4."""
    return (x[:, :, None] - y[:, None]).square().sum(dim=-1).clamp_min(1e-8).sqrt()


def slope(function: Callable[[Tensor], Tensor], at: Tensor, along: Tensor, step: float = 1e-4) -> tuple[float, float]:
    """The derivative along a direction by autograd, and by central differences."""
    point = at.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(point).sum(), point)
    up, down = (function(at + sign * step * along).sum().item() for sign in (1, -1))
    return (gradient * along).sum().item(), (up - down) / (2 * step)
