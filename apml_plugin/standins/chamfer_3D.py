"""Stand-in for the compiled ``chamfer_3D`` of SeedFormer-style hosts: ``chamfer`` with results written in place."""

from __future__ import annotations

from torch import Tensor

from apml_plugin.standins import chamfer
from apml_plugin.standins.arguments import into

forward = into(4, 0, lambda xyz1, xyz2, dist1, dist2, idx1, idx2: chamfer.forward(xyz1, xyz2))
"""Nearest neighbours between (B, N, 3) and (B, M, 3), both ways, written into four buffers.

Returns 1. Not differentiable: hosts call :func:`backward`."""


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
