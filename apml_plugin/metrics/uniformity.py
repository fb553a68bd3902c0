"""How evenly a cloud covers its target."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from apml_plugin.errors import LossValueError

from .inputs import for_each_pair


def uniformity(pred: Tensor, gt: Tensor, share: float = 0.012, disks: int = 200) -> Tensor:
    """Normalised uniformity coefficient (NUC; Yu et al., PU-Net, CVPR 2018, section 4.2). Lower is better.

    NUC is the root mean square deviation, over disks of equal area on the surface, of ``n_i / (N p)`` from its fair
    value: the share of the points that fall into disk i over the share p of the area that a disk covers. The fair
    value here is 1; PU-Net takes the mean ratio, by which a cloud that misses the surface altogether would be
    perfect. PU-Net reads areas from a mesh. Here the ground truth, sampled by area, stands for the surface: disk i is
    the ball around one of ``disks`` of its points that reaches just as far as to hold a ``share`` of all of them. The
    centres are chosen by farthest point sampling, beginning with the point farthest from the centroid: no chance is
    involved. Clumps and holes raise it. A copy of gt has 0; another sample of the same surface about
    ``sqrt(1 / (M p))``; a cloud elsewhere 1, a clump more.

    Args: (N, D) and (M, D), or (B, N, D) and (B, M, D). ``share`` in (0, 1]: PU-Net reports 0.002 to 0.012.
    Returns 0-dim or (B,). Raises LossValueError for share or disks out of range and for unusable clouds.
    """
    if not 0 < share <= 1:
        raise LossValueError(f"share={share!r} must be in (0, 1]")
    if disks < 2:
        raise LossValueError(f"disks={disks!r} must be at least 2")

    def one(x: Tensor, y: Tensor) -> float:
        return _nuc(x.cpu().numpy(), y.cpu().numpy(), share, disks)

    return for_each_pair(pred, gt, one)


def _nuc(pred: NDArray[np.float64], gt: NDArray[np.float64], share: float, disks: int) -> float:
    seeds = gt[farthest_points(gt, min(disks, len(gt)))]
    held = min(max(2, round(share * len(gt))), len(gt))
    reach = cKDTree(gt).query(seeds, k=[held])[0][:, 0] * (1 + 1e-9)  # the last of them is inside, rounding or not
    found = cKDTree(pred).query_ball_point(seeds, reach, return_length=True)
    ratio = found / len(pred) / (held / len(gt))
    return float(np.sqrt(np.square(ratio - 1).mean()))


def farthest_points(points: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """(count,) indices of farthest point sampling, beginning with the point farthest from the centroid."""
    chosen = np.empty(count, np.int64)
    nearest = np.full(len(points), np.inf)
    at = int(np.square(points - points.mean(0)).sum(1).argmax())
    for k in range(count):
        chosen[k] = at
        nearest = np.minimum(nearest, np.square(points - points[at]).sum(1))
        at = int(nearest.argmax())
    return chosen
