"""Stand-in for ``pointops_cuda``: clouds of any sizes one behind the other, results written into the last tensors.

``offset`` (B,) holds where each cloud of ``xyz`` (n, 3) ends, ``new_offset`` where its results end.
"""

from __future__ import annotations

import torch
from torch import Tensor

from apml_plugin.matching.exact import FAR, furthest, nearest
from apml_plugin.standins.absent import absent
from apml_plugin.standins.inplace import write


def furthestsampling_cuda(
    b: int, n_max: int, xyz: Tensor, offset: Tensor, new_offset: Tensor, tmp: Tensor, idx: Tensor
) -> None:
    """``idx`` int32 (m,): in each cloud its first point, then each the furthest from those before it."""
    ends, counts = offset.long(), new_offset.long().diff(prepend=new_offset.new_zeros(1))
    sizes = ends.diff(prepend=ends.new_zeros(1))
    starts, rank = ends - sizes, torch.arange(int(sizes.max()), device=xyz.device)
    inside = rank < sizes[:, None]
    clouds = xyz.detach()[(starts[:, None] + rank).clamp(max=len(xyz) - 1)]
    gap = clouds.new_full(inside.shape, FAR).masked_fill_(~inside, -1.0)
    chosen = furthest(clouds, int(counts.max()), gap) + starts[:, None]
    write(idx, torch.cat([row[:count] for row, count in zip(chosen, counts.tolist(), strict=True)]))


def knnquery_cuda(
    m: int, nsample: int, xyz: Tensor, new_xyz: Tensor, offset: Tensor, new_offset: Tensor, idx: Tensor, dist2: Tensor
) -> None:
    """``idx`` int32 and ``dist2`` (m, nsample): the nearest in its own cloud per query, squared distances.

    With fewer points the rest have distance 1e10 and the index of the cloud's first point.
    """
    start = new_start = 0
    for end, new_end in zip(offset.tolist(), new_offset.tolist(), strict=True):
        k = min(int(nsample), end - start)
        near, index = nearest(new_xyz[None, new_start:new_end], xyz[None, start:end], k)
        idx[new_start:new_end], dist2[new_start:new_end] = start, FAR
        idx[new_start:new_end, :k], dist2[new_start:new_end, :k] = (index[0] + start).to(idx.dtype), near[0]
        start, new_start = end, new_end


__getattr__ = absent("pointops_cuda")
