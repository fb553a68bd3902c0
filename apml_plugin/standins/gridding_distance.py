"""Stand-in for the compiled ``gridding_distance`` of GRNet's gridding loss: each corner has a place of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from apml_plugin.standins.cells import cells, point_gradient


def forward(
    min_x: Any, max_x: Any, min_y: Any, max_y: Any, min_z: Any, max_z: Any, ptcloud: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Spreads each point of (B, n, 3) over the corners of its cell; bounds, often 0-dim tensors, are included.

    Returns ``(grid (B, V, 8), weights (B, n, 8, 3), indices int32 (B, n, 8))``: corner c of a cell adds its
    product of weights to slot c of its vertex, index ``8 vertex + c``. Not differentiable: hosts call
    :func:`backward`. Memory: the grid, and O(n).

    Raises:
        LossValueError: a point outside the grid, or a grid too large to be numbered.
    """
    with torch.no_grad():
        bounds = (min_x, max_x, min_y, max_y, min_z, max_z)
        (x, y, z), weights, vertex = cells("gridding_distance.forward", bounds, ptcloud, slots=8)
        index = 8 * vertex + torch.arange(8, device=vertex.device)
        grid = _zeros((len(ptcloud), 8 * x * y * z), ptcloud)
        grid.scatter_add_(1, index.flatten(1), weights.prod(dim=-1).flatten(1))
        return grid.view(len(ptcloud), -1, 8), weights, index.int()


def backward(grid_pt_weights: Tensor, grid_pt_indexes: Tensor, grad_grid: Tensor) -> Tensor:
    """Gradient of the points (B, n, 3) from that of the grid (B, V, 8)."""
    with torch.no_grad():
        at = grid_pt_indexes.long()
        grad = grad_grid.reshape(len(at), -1).gather(1, at.flatten(1)).view(at.shape)
        return point_gradient(grid_pt_weights, grad)


def _zeros(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Zeros; on the CPU pages that no point touches take no memory, as far as the system allows it."""
    if like.device.type != "cpu" or like.dtype not in (torch.float32, torch.float64):
        return like.new_zeros(shape)
    # NumPy asks for memory that the system hands out zeroed page by page; PyTorch writes every zero itself.
    return torch.from_numpy(np.zeros(shape, dtype=np.float32 if like.dtype == torch.float32 else np.float64))
