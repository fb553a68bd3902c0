"""Stand-in for the compiled ``gridding_distance`` of GRNet's gridding loss: each corner has a place of its own."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from apml_plugin.standins.gridding import backward, spread

__all__ = ["backward", "forward"]


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
    bounds = (min_x, max_x, min_y, max_y, min_z, max_z)
    grid, weights, index = spread("gridding_distance.forward", bounds, ptcloud, slots=8)
    return grid.view(len(ptcloud), -1, 8), weights, index
