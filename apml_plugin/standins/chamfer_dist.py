"""Stand-in for ``chamfer_dist``, the classes of PoinTr-style ``extensions/chamfer_dist``, where they are installed.

Each takes (B, N, 3) and (B, M, 3). With ``ignore_zeros`` and a batch of one, points whose coordinates sum to 0 do not
count. Gradients are those of the compiled module; that of L1 at coinciding points is NaN there and here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from apml_plugin.standins import chamfer
from apml_plugin.standins.absent import absent


class ChamferFunction(torch.autograd.Function):
    """Squared distances ``(dist1 (B, N), dist2 (B, M))`` to the nearest point of the other cloud."""

    @staticmethod
    def forward(ctx: Any, xyz1: Tensor, xyz2: Tensor) -> tuple[Tensor, Tensor]:
        dist1, dist2, idx1, idx2 = chamfer.forward(xyz1, xyz2)
        ctx.save_for_backward(xyz1, xyz2, idx1, idx2)
        return dist1, dist2

    @staticmethod
    def backward(ctx: Any, grad_dist1: Tensor, grad_dist2: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        xyz1, xyz2, idx1, idx2 = ctx.saved_tensors
        return chamfer.backward(xyz1, xyz2, idx1, idx2, grad_dist1, grad_dist2)


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

__getattr__ = absent("chamfer_dist", "Copy it from the host's extensions/chamfer_dist, or install it from there")
