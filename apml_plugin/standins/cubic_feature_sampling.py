"""Stand-in for the compiled ``cubic_feature_sampling`` of GRNet: features of the vertices around each point."""

from __future__ import annotations

import torch
from torch import Tensor

from apml_plugin.errors import LossValueError
from apml_plugin.standins.arguments import check_clouds


def forward(scale: int, neighborhood_size: int, ptcloud: Tensor, cubic_features: Tensor) -> tuple[Tensor, Tensor]:
    """Features (B, C, s, s, s) at the ``(2 k)^3`` vertices around each point (B, n, 3), in grid units.

    Returns ``(features (B, n, (2 k)^3, C), indices int32 (B, n, (2 k)^3))``; vertices are nested x, y, z, from
    ``floor - k + 1`` to ``floor + k``. A vertex outside the grid has index -1 and zeros. Not differentiable: hosts
    call :func:`backward`.

    Raises:
        LossValueError: shapes other than above, or a coordinate that is NaN.
    """
    scale, reach = int(scale), int(neighborhood_size)
    _check(scale, reach, ptcloud, cubic_features)
    with torch.no_grad():
        batch, channels = cubic_features.shape[:2]
        # A vertex far outside is moved to just outside the grid: int64 could not hold its index.
        lower = ptcloud.floor().clamp(-2 * reach - 1, scale + 2 * reach).long()
        step = torch.arange(1 - reach, reach + 1, device=ptcloud.device)
        vertex = lower[:, :, None] + torch.cartesian_prod(step, step, step)
        inside = ((vertex >= 0) & (vertex < scale)).all(dim=-1)
        index = (vertex[..., 0] * scale + vertex[..., 1]) * scale + vertex[..., 2]
        index = torch.where(inside, index, -1)
        # One row per vertex, the last one for those outside: a gather of rows reads memory in order.
        rows = cubic_features.new_zeros(batch * scale**3 + 1, channels)
        rows[:-1].view(batch, -1, channels).copy_(cubic_features.flatten(2).transpose(1, 2))
        return rows[_rows(index, scale)], index.int()


def backward(
    scale: int, neighborhood_size: int, grad_point_features: Tensor, grid_pt_indexes: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of the points (B, n, 3), always zero as in the compiled code, and of the features (B, C, s, s, s)."""
    with torch.no_grad():
        batch, n, _, channels = grad_point_features.shape
        scale = int(scale)
        rows = grad_point_features.new_zeros(batch * scale**3 + 1, channels)
        at = _rows(grid_pt_indexes.long(), scale).reshape(-1, 1).expand(-1, channels)
        rows.scatter_add_(0, at, grad_point_features.reshape(-1, channels))
        grad = rows[:-1].view(batch, -1, channels).transpose(1, 2).reshape(batch, channels, scale, scale, scale)
        return grad_point_features.new_zeros(batch, n, 3), grad


def _rows(index: Tensor, scale: int) -> Tensor:
    start = torch.arange(len(index), device=index.device) * scale**3
    return torch.where(index < 0, len(index) * scale**3, index + start[:, None, None])


def _check(scale: int, reach: int, ptcloud: Tensor, cubic_features: Tensor) -> None:
    caller, shape = "cubic_feature_sampling.forward", tuple(cubic_features.shape)
    check_clouds(caller, ptcloud=ptcloud)
    if shape != (len(ptcloud), *shape[1:2], scale, scale, scale) or reach < 1:
        raise LossValueError(
            f"{caller}: expected neighborhood_size >= 1, ptcloud (B, n, 3) and cubic_features (B, C, s, s, s) with "
            f"s = scale = {scale}, got {reach}, {tuple(ptcloud.shape)} and {shape}"
        )
    if bool(ptcloud.isnan().any()):
        b, i = (int(v) for v in ptcloud.isnan().any(dim=-1).nonzero()[0])
        raise LossValueError(f"{caller}: ptcloud[{b}, {i}] is NaN; the network before it has diverged")
