"""Stand-in for the compiled ``emd`` of PoinTr-style hosts: a one-to-one assignment, results written in place.

The compiled auction leaves conflicts where its rounds end: several points then share a target, and its value is
some 10 % below the true distance at 50 rounds. Here every target is used once, so values are that much higher.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from apml_plugin.errors import LossValueError
from apml_plugin.matching.assignment import assign_pairs
from apml_plugin.matching.inputs import Clouds
from apml_plugin.standins.arguments import check_clouds, write

EXACT = 1024
"""Up to so many points an exact solver is quick for any clouds; beyond, hard ones take minutes."""

TOLERANCE = 0.02
"""How far above the smallest sum the assignment of more points may be, as a share."""


def forward(
    xyz1: Tensor, xyz2: Tensor, dist: Tensor, assignment: Tensor, price: Tensor, assignment_inv: Tensor, *rest: Any
) -> int:
    """Assigns each point of ``xyz1`` (B, n, 3) a different point of ``xyz2`` (B, n, 3); returns 1.

    Written: ``dist`` (B, n), squared distances; ``assignment`` int32 (B, n), the partners in ``xyz2``; and
    ``assignment_inv`` int32 (B, n), the partners in ``xyz1``. ``rest`` is eight scratch buffers of the compiled code,
    ``eps`` and ``iters``; buffers are left as they are, and ``iters`` is ignored. The sum of Euclidean distances is the
    smallest possible up to 1024 points, and within 2 % of it beyond. n need not be a multiple of 1024. Not
    differentiable: hosts call :func:`backward`.

    Raises:
        LossValueError: clouds that differ in shape, coordinates that are NaN or infinite, or eps <= 0.
    """
    eps = rest[-2]
    check_clouds("emd.forward", xyz1=xyz1, xyz2=xyz2)
    if xyz1.shape != xyz2.shape:
        shapes = f"{tuple(xyz1.shape)} and {tuple(xyz2.shape)}"
        raise LossValueError(f"emd.forward: xyz1 and xyz2 differ in shape: {shapes}; sample the larger down")
    if not eps > 0:
        raise LossValueError(f"emd.forward: eps must be above 0, got {eps}")
    for name, cloud in (("xyz1", xyz1), ("xyz2", xyz2)):
        if not bool(torch.isfinite(cloud).all()):
            raise LossValueError(f"emd.forward: {name} has a coordinate that is NaN or infinite")
    with torch.no_grad():
        pairs = assign_pairs(Clouds(xyz1, xyz2, None, None), None if xyz1.shape[1] <= EXACT else TOLERANCE, "raise")
        for b, pair in enumerate(pairs):
            write(dist[b], (xyz1[b] - xyz2[b][pair.columns]).square().sum(dim=-1))
            write(assignment[b], pair.columns)
            write(assignment_inv[b], pair.columns.argsort())
    return 1


def backward(xyz1: Tensor, xyz2: Tensor, gradxyz: Tensor, graddist: Tensor, idx: Tensor) -> int:
    """Adds the gradient of ``xyz1``, ``2 graddist (x - its partner)``, to ``gradxyz`` (B, n, 3); returns 1.

    ``xyz2`` gets none, as in the compiled code.
    """
    with torch.no_grad():
        partner = xyz2.gather(1, idx.long()[..., None].expand(-1, -1, 3))
        gradxyz += (2 * graddist[..., None] * (xyz1 - partner)).to(gradxyz.dtype)
    return 1
