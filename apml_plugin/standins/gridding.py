"""Stand-in for the compiled ``gridding`` of GRNet, points to a grid of weights and back, and ``gridding_distance``.

A point's weights go to the eight corners of its cell. Corners are nested x, y, z, lower before upper: corner 1 is
(lower x, lower y, upper z). A point on a grid plane belongs to the cell above it. Sources: the interfaces of GRNet's
three extensions (Xie et al. 2020), and trilinear weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apml_plugin.errors import LossValueError
from apml_plugin.standins.arguments import check_clouds

NOTHING = 1e-6
"""A cell whose eight weights sum to less gives the point (0, 0, 0)."""

LARGEST_INDEX = 2**31 - 1
"""The interfaces give indices as int32."""


def forward(
    min_x: Any, max_x: Any, min_y: Any, max_y: Any, min_z: Any, max_z: Any, ptcloud: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Spreads each point of (B, n, 3) over the eight corners of its cell; bounds, often 0-dim tensors, are included.

    Returns ``(grid (B, V), weights (B, n, 8, 3), indices int32 (B, n, 8))``; a corner receives the product of its
    three weights. Not differentiable: hosts call :func:`backward`.

    Raises:
        LossValueError: a point outside the grid, bounds that hold no cell, or a grid too large to be numbered.
    """
    return _spread("gridding.forward", (min_x, max_x, min_y, max_y, min_z, max_z), ptcloud)


def distance_forward(
    min_x: Any, max_x: Any, min_y: Any, max_y: Any, min_z: Any, max_z: Any, ptcloud: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """``forward`` of ``gridding_distance``: as :func:`forward`, but each corner has a place of its own.

    Returns ``(grid (B, V, 8), weights (B, n, 8, 3), indices int32 (B, n, 8))``: corner c of a cell adds its
    product of weights to slot c of its vertex, index ``8 vertex + c``. Memory: the grid, and O(n).
    """
    bounds = (min_x, max_x, min_y, max_y, min_z, max_z)
    grid, weights, index = _spread("gridding_distance.forward", bounds, ptcloud, slots=8)
    return grid.view(len(ptcloud), -1, 8), weights, index


def backward(grid_pt_weights: Tensor, grid_pt_indexes: Tensor, grad_grid: Tensor) -> Tensor:
    """Gradient of the points (B, n, 3) from that of the grid that they were spread over.

    A lower corner's weight falls with the coordinate, an upper one's rises; the two other axes' weights multiply.
    """
    with torch.no_grad():
        at, weights = grid_pt_indexes.long(), grid_pt_weights
        grad = grad_grid.reshape(len(at), -1).gather(1, at.flatten(1)).view(at.shape)
        others = weights[..., [1, 0, 0]] * weights[..., [2, 2, 1]]
        return (grad[..., None] * (2 * _bits(weights) - 1) * others).sum(dim=2)


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
        for corner, place in _corners(cube):
            result[place] += base + pull @ corner
        return result.view(len(cube), -1)


def _spread(caller: str, bounds: tuple[Any, ...], ptcloud: Tensor, slots: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Adds the weights of points (B, n, 3) to the vertices of a grid, which lie at the whole numbers.

    Args:
        bounds: min x, max x, min y, max y, min z, max z, numbers or 0-dim tensors; the grid includes them.
        slots: with 8 a vertex has a slot for each of the corners that it can be; with 1 all add to the same one.

    Returns:
        The grid (B, vertices x slots); the weights (B, n, 8, 3), 1 - |point - corner| per axis; and the corners'
        places in the grid, int32 (B, n, 8), ``slots (x len_y len_z + y len_z + z)`` plus the slot. Not
        differentiable.

    Raises:
        LossValueError: a point whose eight corners are not all in the grid (NaN included), bounds that hold no
            cell, or more than 2^31 - 1 vertices x ``slots``, what int32 can number.
    """
    check_clouds(caller, ptcloud=ptcloud)
    limits = [float(bound) for bound in bounds]
    low, high = limits[0::2], limits[1::2]
    _check_bounds(caller, low, high, ptcloud)
    x, y, z = (int(b) - int(a) + 1 for a, b in zip(low, high, strict=True))
    if x * y * z * slots > LARGEST_INDEX:
        raise LossValueError(
            f"{caller}: a grid of {x} x {y} x {z} vertices has more entries than int32 can number, "
            f"from {low} to {high}. Points that far out mean a prediction that diverged or is not normalised yet: "
            "scale the clouds down, or lower the learning rate"
        )
    with torch.no_grad():
        corner = ptcloud.floor()[:, :, None] + _bits(ptcloud)
        weights = 1 - (ptcloud[:, :, None] - corner).abs()
        place = (corner - corner.new_tensor([int(a) for a in low])).long()
        vertex = (place[..., 0] * y + place[..., 1]) * z + place[..., 2]
        index = slots * vertex + torch.arange(8, device=vertex.device) % slots
        grid = _zeros((len(ptcloud), slots * x * y * z), ptcloud)
        return grid.scatter_add_(1, index.flatten(1), weights.prod(dim=-1).flatten(1)), weights, index.int()


def _bits(like: Tensor) -> Tensor:
    """(8, 3) zeros and ones: which corner is the upper one on which axis."""
    step = torch.arange(2, dtype=like.dtype, device=like.device)
    return torch.cartesian_prod(step, step, step)


def _check_bounds(caller: str, low: list[float], high: list[float], ptcloud: Tensor) -> None:
    for axis, a, b in zip("xyz", low, high, strict=True):
        if not b > a or b - a > LARGEST_INDEX:
            raise LossValueError(f"{caller}: a grid from {a:g} to {b:g} along {axis} holds no cells it could number")
    inside = (ptcloud >= ptcloud.new_tensor(low)) & (ptcloud < ptcloud.new_tensor(high))
    if bool(inside.all()):
        return
    b, i, axis_number = (int(v) for v in (~inside).nonzero()[0])
    raise LossValueError(
        f"{caller}: ptcloud[{b}, {i}] has {'xyz'[axis_number]} = {float(ptcloud[b, i, axis_number]):g}, outside the "
        f"grid's [{low[axis_number]:g}, {high[axis_number]:g}) (the compiled code would write beyond its memory). "
        "Normalise the clouds as the host's data sets do"
    )


def _zeros(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Zeros; on the CPU pages that no point touches take no memory, as far as the system allows it."""
    if like.device.type != "cpu" or like.dtype not in (torch.float32, torch.float64):
        return like.new_zeros(shape)
    # NumPy asks for memory that the system hands out zeroed page by page; PyTorch writes every zero itself.
    return torch.from_numpy(np.zeros(shape, dtype=np.float32 if like.dtype == torch.float32 else np.float64))


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


def _sums(cube: Tensor) -> tuple[Any, Any]:
    """Per cell (B, s - 1, s - 1, s - 1): the sum of all eight weights, and per axis (.., 3) that of the upper four."""
    total: Any = 0
    upper: Any = 0
    for corner, place in _corners(cube):
        total, upper = total + cube[place], upper + cube[place][..., None] * corner
    return total, upper


def _corners(cube: Tensor) -> Iterator[tuple[Tensor, tuple[slice, ...]]]:
    """The eight corners of all cells: which they are (see :func:`_bits`), and where they lie in the cube."""
    cells = cube.shape[1] - 1
    for corner in _bits(cube):
        yield corner, (slice(None), *(slice(int(bit), cells + int(bit)) for bit in corner))
