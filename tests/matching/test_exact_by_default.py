"""With default settings the loss is the definition's: on easy clouds, and on those of early training.

``APML_EVERY_FORM=1`` tries 330 pairs in place of 44.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from apml_plugin.functional import apml_loss
from apml_plugin.matching import extension

SEEDS = range(30 if os.environ.get("APML_EVERY_FORM") else 4)
SIZES = (100, 256, 700, 1500)

Make = Callable[[int], tuple[Tensor, Tensor]]


def _sphere(n: int) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(n, 3), dim=1)


def _noisy(n: int) -> tuple[Tensor, Tensor]:
    gt = _sphere(n)
    return gt + 0.02 * torch.randn(n, 3), gt


def _flat(n: int, coordinates: int, scale: float = 1.0) -> Tensor:
    points = torch.zeros(n, 3)
    points[:, :coordinates] = scale * torch.rand(n, coordinates)
    return points


def _duplicates(n: int) -> tuple[Tensor, Tensor]:
    pred, gt = torch.rand(n, 3), torch.rand(n, 3)
    pred[: n // 10], gt[: n // 10] = pred[0].clone(), gt[0].clone()
    return pred, gt


def _lattice(n: int) -> tuple[Tensor, Tensor]:
    side = torch.arange(float(round(n ** (1 / 3))))
    points = torch.cartesian_prod(side, side, side) / len(side)
    return points, points + 0.3 / len(side) * torch.rand(3)


def _rings(n: int) -> tuple[Tensor, Tensor]:
    """The ground as a LiDAR sees it: dense near the sensor, sparse far away."""
    elevation = torch.deg2rad(torch.randint(0, 32, (n,)) - 25.0)
    radius, turn = 5 / (elevation.sin().abs() + 0.05), 2 * math.pi * torch.rand(n)
    gt = torch.stack([radius * turn.cos(), radius * turn.sin(), torch.full((n,), -1.7)], dim=1)
    return gt + 0.02 * torch.randn(n, 3), gt[torch.randperm(n)]


PAIRS: dict[str, Make] = {
    "noisy sphere": _noisy,
    "two spheres": lambda n: (_sphere(n), _sphere(n)),
    "cube and sphere": lambda n: (2 * torch.rand(n, 3) - 1, _sphere(n)),
    "two cubes": lambda n: (torch.rand(n, 3), torch.rand(n, 3)),
    "blob and sphere": lambda n: (0.05 * torch.randn(n, 3), _sphere(n)),
    "two planes": lambda n: (_flat(n, 2), _flat(n, 2)),
    "patch and plane": lambda n: (_flat(n, 2, 0.1), _flat(n, 2)),
    "two lines": lambda n: (_flat(n, 1), _flat(n, 1)),
    "duplicates": _duplicates,
    "lattice": _lattice,
    "rings": _rings,
}


def with_gradients(pred: Tensor, gt: Tensor, **options: object) -> list[Tensor]:
    pred, gt = pred.clone().requires_grad_(), gt.clone().requires_grad_()
    loss = apml_loss(pred[None], gt[None], **options)  # type: ignore[arg-type]
    loss.backward()
    return [loss.detach().double(), pred.grad.double(), gt.grad.double()]


@pytest.mark.parametrize("backend", ["native", "sparse"])
@pytest.mark.parametrize("pair", PAIRS)
def test_the_default_is_the_definition(pair: str, backend: str) -> None:
    if backend == "native" and extension.missing("cpu"):
        pytest.skip(str(extension.missing("cpu")))
    for seed in SEEDS:
        torch.manual_seed(seed)
        pred, gt = PAIRS[pair](SIZES[seed % len(SIZES)])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = with_gradients(pred, gt, backend=backend)
        for value, exact in zip(found, with_gradients(pred.double(), gt.double(), backend="dense"), strict=True):
            assert ((value - exact).norm() / exact.norm()).item() < 1e-6, (seed, len(pred))
