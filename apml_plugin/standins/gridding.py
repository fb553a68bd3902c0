"""Stand-in for the compiled ``gridding`` of GRNet: points to a grid of weights, and a grid back to points."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from apml_plugin.errors import LossValueError
from apml_plugin.standins.cells import backward, bits, spread

__all__ = ["backward", "forward", "rev_backward", "rev_forward"]

NOTHING = 1e-6
"""A cell whose eight weights sum to less gives the point (0, 0, 0)."""


def forward(
    min_x: Any, max_x: Any, min_y: Any, max_y: Any, min_z: Any, max_z: Any, ptcloud: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Spreads each point of (B, n, 3) over the eight corners of its cell; bounds are included.

    Returns ``(grid (B, V), weights (B, n, 8, 3), indices int32 (B, n, 8))``; a corner receives the product of its
    three weights. Not differentiable: hosts call :func:`backward`.

    Raises:
        LossValueError: a point outside the grid (see :func:`~apml_plugin.standins.cells.cells`).
    """
    return spread("gridding.forward", (min_x, max_x, min_y, max_y, min_z, max_z), ptcloud)


def rev_forward(scale: int, grid: Tensor) -> Tensor:
    """One point per vertex (B, scale^3, 3): the weighted mean of the corners of the cell below it.

    Coordinates run from -scale // 2. Vertices without a cell below (one of x, y, z is 0) and cells whose weights
    sum to less than 1e-6 give zeros. ``grid``: scale^3 entries per sample, in any shape.
    """
    with torch.no_grad():
        cube = _cube("gridding.rev_forward", grid, int(scale))
        total, upper = _sums(cube)
        mean = upper / total[..., None] + _lower_corner(cube)
        mean.masked_fill_((total < NOTHING)[..., None], 0)
        points = cube.new_zeros(*cube.shape, 3)
        points[:, 1:, 1:, 1:] = mean
        return points.view(len(cube), -1, 3)


def rev_backward(ptcloud: Tensor, grid: Tensor, grad_ptcloud: Tensor) -> Tensor:
    """Gradient of the grid (B, scale^3) from that of the points (B, scale^3, 3).

    Each corner of a cell receives the sum over the axes of ``grad (corner - point) / (sum of weights)``.
    """
    with torch.no_grad():
        scale = round(ptcloud.shape[1] ** (1 / 3))
        cube = _cube("gridding.rev_backward", grid, scale)
        total, _ = _sums(cube)
        shape = (*cube.shape, 3)
        pull = grad_ptcloud.reshape(shape)[:, 1:, 1:, 1:] / total[..., None]
        pull.masked_fill_((total < NOTHING)[..., None], 0)
        base = (pull * (_lower_corner(cube) - ptcloud.reshape(shape)[:, 1:, 1:, 1:])).sum(dim=-1)
        result = torch.zeros_like(cube)
        for corner in bits(cube):
            i, j, k = (int(bit) for bit in corner)
            place = (slice(i, scale - 1 + i), slice(j, scale - 1 + j), slice(k, scale - 1 + k))
            result[:, place[0], place[1], place[2]] += base + pull @ corner
        return result.view(len(cube), -1)


def _cube(caller: str, grid: Tensor, scale: int) -> Tensor:
    if grid.dim() < 2 or scale < 1 or grid[0].numel() != scale**3:
        raise LossValueError(
            f"{caller}: grid must hold scale^3 = {scale}^3 entries per sample, got {tuple(grid.shape)}"
        )
    return grid.reshape(len(grid), scale, scale, scale)


def _lower_corner(cube: Tensor) -> Tensor:
    """The lower corner's coordinates of each of the (s - 1)^3 cells, (s - 1, s - 1, s - 1, 3)."""
    axis = torch.arange(cube.shape[1] - 1, dtype=cube.dtype, device=cube.device) - cube.shape[1] // 2
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)


def _sums(cube: Tensor) -> tuple[Tensor, Tensor]:
    """Per cell (B, s - 1, s - 1, s - 1): the sum of all eight weights, and per axis (.., 3) that of the upper four."""
    upper = []
    for axis in (1, 2, 3):
        part = cube
        for other in {1, 2, 3} - {axis}:
            part = _both(part, other)
        upper.append(part.narrow(axis, 1, cube.shape[axis] - 1))
    return _both(_both(_both(cube, 1), 2), 3), torch.stack(upper, dim=-1)


def _both(cube: Tensor, axis: int) -> Tensor:
    length = cube.shape[axis] - 1
    return cube.narrow(axis, 0, length) + cube.narrow(axis, 1, length)
