"""Stand-in for the compiled ``chamfer`` module of PoinTr-style hosts: both directions' squared distances."""

from __future__ import annotations

import torch
from torch import Tensor

from apml_plugin.matching.exact import gather, nearest


def forward(xyz1: Tensor, xyz2: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Nearest neighbours between (B, N, 3) and (B, M, 3), both ways.

    Returns ``(dist1 (B, N), dist2 (B, M), idx1 (B, N), idx2 (B, M))``: squared distances in the clouds' dtype,
    int32 indices, the lowest index where distances tie. Not differentiable: hosts call :func:`backward`.

    Raises:
        ValueError: shapes other than above, or a cloud without points.
    """
    dist1, idx1 = nearest(xyz1, xyz2)
    dist2, idx2 = nearest(xyz2, xyz1)
    return dist1[..., 0], dist2[..., 0], idx1[..., 0].int(), idx2[..., 0].int()


def backward(
    xyz1: Tensor, xyz2: Tensor, idx1: Tensor, idx2: Tensor, grad_dist1: Tensor, grad_dist2: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients (B, N, 3) and (B, M, 3) from those of both distances.

    With g1 the gradient of dist1 and j its index: ``2 g1 (x1 - x2[j])`` goes to x1, its negative to ``x2[j]``;
    the other direction mirrors that.
    """
    with torch.no_grad():
        grad1, grad2 = torch.zeros_like(xyz1), torch.zeros_like(xyz2)
        _add(grad1, grad2, xyz1, xyz2, idx1, grad_dist1)
        _add(grad2, grad1, xyz2, xyz1, idx2, grad_dist2)
    return grad1, grad2


def _add(grad_from: Tensor, grad_to: Tensor, start: Tensor, end: Tensor, index: Tensor, grad: Tensor) -> None:
    pull = 2 * grad[..., None] * (start - gather(end, index[..., None])[:, :, 0])
    grad_from += pull
    grad_to.scatter_add_(1, index.long()[..., None].expand_as(pull), -pull)
