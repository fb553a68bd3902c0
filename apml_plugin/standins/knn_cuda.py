"""Stand-in for ``knn_cuda``: the k nearest reference points of each query."""

from __future__ import annotations

from torch import Tensor, nn

from apml_plugin.errors import LossValueError
from apml_plugin.matching.exact import nearest


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
        distance, index = nearest(query, ref, self.k)
        if self._t:
            return distance.sqrt(), index
        return distance.sqrt().transpose(1, 2).contiguous(), index.transpose(1, 2).contiguous()
