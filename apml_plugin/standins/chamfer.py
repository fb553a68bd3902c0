"""Stand-in for the compiled ``chamfer``, both directions' squared distances, and for two that do the same.

``forward`` and ``backward`` are those of ``chamfer``, of PoinTr-style hosts; ``forward_into`` and ``backward_into``
those of ``chamfer_3D``, of SeedFormer-style hosts. The classes are those of PoinTr-style ``extensions/chamfer_dist``,
where hosts have installed it. Each takes (B, N, 3) and (B, M, 3). With ``ignore_zeros`` and a batch of one, points
whose coordinates sum to 0 are left out. Gradients are those of the compiled module: that of L1 is NaN where points
coincide.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from apml_plugin.matching.exact import gather, nearest
from apml_plugin.standins.arguments import into


def nearest_both(xyz1: Tensor, xyz2: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Nearest neighbours between (B, N, 3) and (B, M, 3), both ways.

    Returns ``(dist1 (B, N), dist2 (B, M), idx1 (B, N), idx2 (B, M))``: squared distances in the clouds' dtype,
    int32 indices, the lowest index where distances tie. Not differentiable: hosts call :func:`gradients`.

    Raises:
        ValueError: shapes other than above, or a cloud without points.
    """
    dist1, idx1 = nearest(xyz1, xyz2)
    dist2, idx2 = nearest(xyz2, xyz1)
    return dist1[..., 0], dist2[..., 0], idx1[..., 0].int(), idx2[..., 0].int()


def gradients(
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


forward, backward = nearest_both, gradients

forward_into = into(4, 0, lambda xyz1, xyz2, dist1, dist2, idx1, idx2: nearest_both(xyz1, xyz2))
""":func:`nearest_both` with the results written into four buffers; returns 1."""


def backward_into(xyz1: Tensor, xyz2: Tensor, gradxyz1: Tensor, gradxyz2: Tensor, *rest: Tensor) -> int:
    """Adds the clouds' gradients to ``gradxyz1`` and ``gradxyz2``; returns 1.

    ``rest``: the gradients of both distances, then both indices.
    """
    graddist1, graddist2, idx1, idx2 = rest
    grad1, grad2 = gradients(xyz1, xyz2, idx1, idx2, graddist1, graddist2)
    gradxyz1 += grad1
    gradxyz2 += grad2
    return 1


class ChamferFunction(torch.autograd.Function):
    """Squared distances ``(dist1 (B, N), dist2 (B, M))`` to the nearest point of the other cloud."""

    @staticmethod
    def forward(ctx: Any, xyz1: Tensor, xyz2: Tensor) -> tuple[Tensor, Tensor]:
        dist1, dist2, idx1, idx2 = nearest_both(xyz1, xyz2)
        ctx.save_for_backward(xyz1, xyz2, idx1, idx2)
        return dist1, dist2

    @staticmethod
    def backward(ctx: Any, grad_dist1: Tensor, grad_dist2: Tensor) -> tuple[Tensor, Tensor]:
        xyz1, xyz2, idx1, idx2 = ctx.saved_tensors
        return gradients(xyz1, xyz2, idx1, idx2, grad_dist1, grad_dist2)


class ChamferDistanceL2(nn.Module):
    """Mean squared distance one way plus the other."""

    _value: Any = staticmethod(lambda dist1, dist2: dist1.mean() + dist2.mean())

    def __init__(self, ignore_zeros: bool = False) -> None:
        super().__init__()
        self.ignore_zeros = ignore_zeros

    def forward(self, xyz1: Tensor, xyz2: Tensor) -> Any:
        if self.ignore_zeros and len(xyz1) == 1:
            xyz1, xyz2 = (cloud[cloud.sum(dim=2).ne(0)][None] for cloud in (xyz1, xyz2))
        return self._value(*ChamferFunction.apply(xyz1, xyz2))


class ChamferDistanceL1(ChamferDistanceL2):
    """Half the sum of the mean distances one way and the other."""

    _value = staticmethod(lambda dist1, dist2: (dist1.sqrt().mean() + dist2.sqrt().mean()) / 2)


class ChamferDistanceL2_split(ChamferDistanceL2):
    """Both mean squared distances."""

    _value = staticmethod(lambda dist1, dist2: (dist1.mean(), dist2.mean()))


class ChamferDistanceL1_split(ChamferDistanceL2):
    """Both mean distances."""

    _value = staticmethod(lambda dist1, dist2: (dist1.sqrt().mean(), dist2.sqrt().mean()))


class ChamferDistanceL1_PM(ChamferDistanceL2):
    """Mean distance from the first cloud to the second."""

    _value = staticmethod(lambda dist1, dist2: dist1.sqrt().mean())


class PatialChamferDistanceL2(ChamferDistanceL2):
    """Mean squared distance from the first cloud to the second."""

    _value = staticmethod(lambda dist1, dist2: dist1.mean())


PatialChamferDistanceL1 = ChamferDistanceL1_PM
ChamferDistance = ChamferDistanceL2
