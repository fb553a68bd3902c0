"""Stand-in for the compiled ``chamfer_3D`` of SeedFormer-style hosts: :mod:`.chamfer`, results written in place."""

from __future__ import annotations

from torch import Tensor

from apml_plugin.standins import chamfer
from apml_plugin.standins.inplace import write


def forward(xyz1: Tensor, xyz2: Tensor, dist1: Tensor, dist2: Tensor, idx1: Tensor, idx2: Tensor) -> int:
    """Nearest neighbours between (B, N, 3) and (B, M, 3), both ways; returns 1.

    Written: ``dist1`` (B, N) and ``dist2`` (B, M), squared distances, ``idx1`` and ``idx2``, the lowest index where
    distances tie. Not differentiable: hosts call :func:`backward`.

    Raises:
        ValueError: shapes other than above, or a cloud without points.
    """
    for buffer, result in zip((dist1, dist2, idx1, idx2), chamfer.forward(xyz1, xyz2), strict=True):
        write(buffer, result)
    return 1


def backward(
    xyz1: Tensor,
    xyz2: Tensor,
    gradxyz1: Tensor,
    gradxyz2: Tensor,
    graddist1: Tensor,
    graddist2: Tensor,
    idx1: Tensor,
    idx2: Tensor,
) -> int:
    """Adds both clouds' gradients to ``gradxyz1`` (B, N, 3) and ``gradxyz2`` (B, M, 3); returns 1."""
    grad1, grad2 = chamfer.backward(xyz1, xyz2, idx1, idx2, graddist1, graddist2)
    gradxyz1 += grad1
    gradxyz2 += grad2
    return 1
