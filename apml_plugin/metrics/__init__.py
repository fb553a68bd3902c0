"""What a loss is judged by. None gives a gradient.

Of (pred, gt), one pair of clouds or a batch of them: `cd_l1`, `cd_l2`, `dcd`, `emd`, `f_score`, `uniformity`,
`matched_distance_quantiles`. Of two sets of clouds: `jsd`, `coverage`, `minimum_matching_distance`. Over a data set,
batch by batch and across processes: `Accumulator`. Values are in the unit of the coordinates (CD-L2 in its square);
the factor 1000 of PoinTr's tables is an accumulator's `scale`.
"""

from .accumulators import Accumulator
from .chamfer import cd_l1, cd_l2
from .density import dcd
from .emd import emd
from .fscore import f_score
from .jsd import jsd
from .matched import matched_distance_quantiles, matched_distances
from .sets import coverage, minimum_matching_distance, pairwise_distances
from .uniformity import uniformity

__all__ = [
    "Accumulator", "cd_l1", "cd_l2", "coverage", "dcd", "emd", "f_score", "jsd", "matched_distance_quantiles",
    "matched_distances", "minimum_matching_distance", "pairwise_distances", "uniformity",
]  # fmt: skip
