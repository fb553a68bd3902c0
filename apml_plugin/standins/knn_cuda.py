"""Stand-in for ``knn_cuda``: the k nearest reference points of each query."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from apml_plugin.errors import LossValueError
from apml_plugin.standins.nearest import BLOCK_ENTRIES


class KNN(nn.Module):
    """``KNN(k, transpose_mode)(ref, query)`` gives distances and int64 indices of the k nearest, nearest first.

    With ``transpose_mode`` clouds are (B, n, d) and results (B, queries, k); without it (B, d, n) and
    (B, k, queries). Distances are Euclidean; of equal ones the lower index comes first. No gradient.
    """

    def __init__(self, k: int, transpose_mode: bool = False) -> None:
        super().__init__()
        self.k = k
        self._t = transpose_mode

    def forward(self, ref: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        """Raises LossValueError for clouds that do not fit each other, and for fewer than k reference points."""
        if not self._t:
            ref, query = ref.transpose(1, 2), query.transpose(1, 2)
        if ref.dim() != 3 or query.dim() != 3 or len(ref) != len(query) or ref.shape[2] != query.shape[2]:
            raise LossValueError(f"KNN: ref and query do not fit each other: {tuple(ref.shape)}, {tuple(query.shape)}")
        if ref.shape[1] < self.k:
            raise LossValueError(f"KNN: ref has {ref.shape[1]} points, fewer than k = {self.k}")
        with torch.no_grad():
            found = [_nearest(r, q, self.k) for r, q in zip(ref, query, strict=True)]
            shape = (len(query), query.shape[1], self.k)
            distance = torch.stack([d for d, _ in found]) if found else query.new_empty(shape)
            index = torch.stack([i for _, i in found]) if found else torch.empty(shape, dtype=torch.int64)
        if self._t:
            return distance, index
        return distance.transpose(1, 2).contiguous(), index.transpose(1, 2).contiguous()


def _nearest(ref: Tensor, query: Tensor, k: int) -> tuple[Tensor, Tensor]:
    far, index = [query.new_empty(0, k)], [torch.empty(0, k, dtype=torch.int64, device=query.device)]
    for block in query.split(max(1, BLOCK_ENTRIES // len(ref))):
        pairs = torch.cdist(block, ref, compute_mode="donot_use_mm_for_euclid_dist")
        # topk alone does not promise an order among equals: ask for their indices once they are chosen.
        near, at = pairs.topk(k, dim=1, largest=False)
        tied = (pairs <= near[:, -1:]).sum(dim=1) > k
        rows = (tied | (near[:, 1:] == near[:, :-1]).any(dim=1)).nonzero()[:, 0]
        if len(rows):
            near[rows], at[rows] = (part[:, :k] for part in pairs[rows].sort(dim=1, stable=True))
        far.append(near)
        index.append(at)
    return torch.cat(far), torch.cat(index)
