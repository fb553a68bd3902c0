"""Stand-in for the compiled ``chamfer`` module of PoinTr-style hosts: both directions' squared distances."""

from __future__ import annotations

import torch
from torch import Tensor

from apml_plugin.standins.nearest import nearest


def forward(xyz1: Tensor, xyz2: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Nearest neighbours between (B, N, 3) and (B, M, 3), both ways.

    Returns ``(dist1 (B, N), dist2 (B, M), idx1 (B, N), idx2 (B, M))``: squared distances in the clouds' dtype,
    int32 indices, the lowest index where distances tie. Not differentiable: hosts call :func:`backward`.

    Raises:
        ValueError: shapes other than above, or a cloud without points.
    """
    if xyz1.dim() != 3 or xyz2.dim() != 3 or xyz1.shape[0] != xyz2.shape[0] or xyz1.shape[2] != xyz2.shape[2]:
        raise ValueError(
            f"chamfer.forward: expected (B, N, 3) and (B, M, 3), got {tuple(xyz1.shape)} and {tuple(xyz2.shape)}"
        )
    with torch.no_grad():
        there = [nearest(a, b) for a, b in zip(xyz1, xyz2, strict=True)]
        back = [nearest(b, a) for a, b in zip(xyz1, xyz2, strict=True)]
    return _distances(there, xyz1), _distances(back, xyz2), _indices(there, xyz1), _indices(back, xyz2)


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
    where = index.long()[..., None].expand(-1, -1, start.shape[-1])
    pull = 2 * grad[..., None] * (start - end.gather(1, where))
    grad_from += pull
    grad_to.scatter_add_(1, where, -pull)


def _distances(found: list[tuple[Tensor, Tensor]], like: Tensor) -> Tensor:
    return torch.stack([d for d, _ in found]) if found else like.new_empty(like.shape[:2])


def _indices(found: list[tuple[Tensor, Tensor]], like: Tensor) -> Tensor:
    if not found:
        return torch.empty(like.shape[:2], dtype=torch.int32, device=like.device)
    return torch.stack([i for _, i in found]).int()
