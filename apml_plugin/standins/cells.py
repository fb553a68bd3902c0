"""The eight grid corners around each point, as GRNet's compiled modules number and weigh them.

Corners are nested x, y, z, lower before upper: corner 1 is (lower x, lower y, upper z). A point on a grid plane
belongs to the cell above it. Sources: the three extensions' interfaces, and trilinear weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from apml_plugin.errors import LossValueError

LARGEST_INDEX = 2**31 - 1
"""The interfaces give indices as int32."""


def spread(caller: str, bounds: tuple[Any, ...], ptcloud: Tensor, slots: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Adds to each vertex of a grid the weights of the points (B, n, 3) around it, as :func:`cells` places them.

    With 8 ``slots`` a vertex has one for each of the corners that it can be. Returns the grid (B, vertices x slots),
    the weights (B, n, 8, 3), and the corners' places in the grid, int32 (B, n, 8). Not differentiable.
    """
    with torch.no_grad():
        (x, y, z), weights, vertex = cells(caller, bounds, ptcloud, slots)
        index = slots * vertex + torch.arange(8, device=vertex.device) % slots
        grid = _zeros((len(ptcloud), slots * x * y * z), ptcloud)
        return grid.scatter_add_(1, index.flatten(1), weights.prod(dim=-1).flatten(1)), weights, index.int()


def cells(
    caller: str, bounds: tuple[Any, ...], ptcloud: Tensor, slots: int = 1
) -> tuple[tuple[int, int, int], Tensor, Tensor]:
    """Places points (B, n, 3) in a grid with a vertex at every whole number.

    ``bounds`` are min x, max x, min y, max y, min z, max z, numbers or 0-dim tensors; the grid includes them.
    Returns the grid's vertices per axis, the weights (B, n, 8, 3), 1 - |point - corner| per axis, and the corners'
    flat vertex indices int64 (B, n, 8), ``x len_y len_z + y len_z + z``.

    Raises:
        LossValueError: a point whose eight corners are not all in the grid (NaN included), bounds that hold no
            cell, or more than 2^31 - 1 vertices x ``slots``, what int32 can number.
    """
    if ptcloud.dim() != 3 or ptcloud.shape[2] != 3:
        raise LossValueError(f"{caller}: ptcloud must be (B, n, 3), got {tuple(ptcloud.shape)}")
    limits = [float(bound) for bound in bounds]
    low, high = limits[0::2], limits[1::2]
    _check(caller, low, high, ptcloud)
    x, y, z = (int(b) - int(a) + 1 for a, b in zip(low, high, strict=True))
    if x * y * z * slots > LARGEST_INDEX:
        raise LossValueError(
            f"{caller}: a grid of {x} x {y} x {z} vertices has more entries than int32 can number, "
            f"from {low} to {high}. Points that far out mean a prediction that diverged or is not normalised yet: "
            "scale the clouds down, or lower the learning rate"
        )
    corner = ptcloud.floor()[:, :, None] + bits(ptcloud)
    weights = 1 - (ptcloud[:, :, None] - corner).abs()
    place = (corner - corner.new_tensor([int(a) for a in low])).long()
    return (x, y, z), weights, (place[..., 0] * y + place[..., 1]) * z + place[..., 2]


def backward(grid_pt_weights: Tensor, grid_pt_indexes: Tensor, grad_grid: Tensor) -> Tensor:
    """Gradient of the points (B, n, 3) from that of the grid that they were spread over.

    A lower corner's weight falls with the coordinate, an upper one's rises; the two other axes' weights multiply.
    """
    with torch.no_grad():
        at, weights = grid_pt_indexes.long(), grid_pt_weights
        grad = grad_grid.reshape(len(at), -1).gather(1, at.flatten(1)).view(at.shape)
        others = weights[..., [1, 0, 0]] * weights[..., [2, 2, 1]]
        return (grad[..., None] * (2 * bits(weights) - 1) * others).sum(dim=2)


def bits(like: Tensor) -> Tensor:
    """(8, 3) zeros and ones: which corner is the upper one on which axis."""
    step = torch.arange(2, dtype=like.dtype, device=like.device)
    return torch.cartesian_prod(step, step, step)


def _check(caller: str, low: list[float], high: list[float], ptcloud: Tensor) -> None:
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
