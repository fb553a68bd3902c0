"""Stand-in for the compiled ``expansion_penalty``: long edges of the minimum spanning tree of each patch.

Written from MSN's description: a patch's points are joined by their minimum spanning tree, which is then pruned,
all leaves at once; each edge is charged to the leaf that leaves with it (of two last points, the higher index), and
counts if it is longer than ``alpha`` times the patch's mean edge.
"""

from __future__ import annotations

import torch
from torch import Tensor

from apml_plugin.errors import LossValueError
from apml_plugin.standins.arguments import check_clouds, write


def forward(
    xyz: Tensor,
    primitive_size: int,
    assignment: Tensor,
    dist: Tensor,
    alpha: float,
    neighbor: Tensor,
    cost: Tensor,
    mean_mst_length: Tensor,
) -> int:
    """Penalises (B, n, 3), n a multiple of ``primitive_size``, whose points follow one another; returns 1.

    Written: ``dist`` (B, n), the length of the edge charged to a point or 0; ``assignment`` int32 (B, n), the
    edge's other end or -1; ``mean_mst_length`` (B,), the sum of the patches' mean edge lengths. ``neighbor`` and
    ``cost``, scratch space of the compiled code, are left as they are. Not differentiable: hosts call
    :func:`backward`. Time O(n primitive_size); all patches take a step at once.

    Raises:
        LossValueError: xyz has another shape, or n is no multiple of ``primitive_size``.
    """
    check_clouds("expansion_penalty.forward", xyz=xyz)
    batch, n, _ = xyz.shape
    size = int(primitive_size)
    if size < 1 or n % size:
        raise LossValueError(f"expansion_penalty.forward: {n} points are no multiple of primitive_size {size}")
    with torch.no_grad():
        patches = xyz.detach().reshape(-1, size, 3)
        parent, length = _trees(patches)
        mean = length.sum(dim=1) / max(1, size - 1)
        far, end = _prune(parent, length)
        long = (end >= 0) & (far > float(alpha) * mean[:, None])
        start = torch.arange(len(patches), device=xyz.device)[:, None] % max(1, n // size) * size
        write(dist, torch.where(long, far, 0).view(batch, n))
        write(assignment, torch.where(long, end + start, -1).view(batch, n))
        write(mean_mst_length, mean.view(batch, -1).sum(dim=1))
    return 1


def backward(xyz: Tensor, grad_xyz: Tensor, grad_dist: Tensor, assignment: Tensor) -> int:
    """Adds ``2 grad_dist (x - other end)`` to ``grad_xyz`` (B, n, 3) for each charged point; returns 1.

    That is the squared length's gradient, and the other end gets none: both as in the compiled code.
    """
    with torch.no_grad():
        index = assignment.long()
        other = xyz.gather(1, index.clamp(min=0)[..., None].expand(-1, -1, 3))
        pull = 2 * grad_dist[..., None] * (xyz - other)
        grad_xyz += pull.masked_fill((index < 0)[..., None], 0).to(grad_xyz.dtype)
    return 1


def _trees(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Prim's algorithm from point 0 for all patches (P, s, 3) at once.

    Returns each point's parent (P, s) and the edge's length (P, s), 0 for point 0, the root.
    """
    count, size, _ = patches.shape
    every = torch.arange(count, device=patches.device)
    last = torch.zeros(count, dtype=torch.int64, device=patches.device)
    gap = patches.new_full((count, size), float("inf"))
    nearest = torch.zeros(count, size, dtype=torch.int64, device=patches.device)
    parent = torch.zeros_like(nearest)
    inside = torch.zeros(count, size, dtype=torch.bool, device=patches.device)
    length = torch.zeros_like(gap)
    inside[:, 0] = True
    for _ in range(1, size):
        far = (patches - patches[every, last][:, None]).square().sum(dim=-1).sqrt_()
        nearer = far < gap
        nearest = torch.where(nearer, last[:, None], nearest)
        gap = torch.where(nearer, far, gap)
        last = gap.masked_fill(inside, float("inf")).argmin(dim=1)
        inside[every, last] = True
        length[every, last] = gap[every, last]
        parent[every, last] = nearest[every, last]
    return parent, length


def _prune(parent: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """The edge by which each point (P, s) leaves its tree: its length, and its other end or -1 for the last point."""
    size = parent.shape[1]
    child = torch.arange(size, device=parent.device).expand_as(parent)
    charged, other = torch.zeros_like(length), torch.full_like(parent, -1)
    edge = child > 0  # whether the edge from this point to its parent is left; the root has no parent
    while bool(edge.any()):
        degree = edge.long().scatter_add(1, parent, edge.long())
        above = degree.gather(1, parent)
        leaf = edge & (degree == 1) & ((above > 1) | (child > parent))
        top = edge & (above == 1) & ((degree > 1) | (parent > child))
        charged, other = torch.where(leaf, length, charged), torch.where(leaf, parent, other)
        # A parent that is a leaf has one edge left, so no two children write to it.
        patch, at = top.nonzero(as_tuple=True)
        charged[patch, parent[patch, at]], other[patch, parent[patch, at]] = length[patch, at], at
        edge = edge & ~leaf & ~top
    return charged, other
