"""Metrics to judge a prediction by. None gives a gradient.

Of (pred, gt), one pair of clouds or a batch of them: `cd_l1`, `cd_l2`, `dcd`, `emd`, `f_score`, `hausdorff`,
`uniformity`, `matched_distance_quantiles`. Of two sets of clouds: `jsd`, `coverage`, `minimum_matching_distance`. Over
a data set, batch by batch and across processes: `Accumulator`. Values are in the unit of the coordinates (CD-L2 in its
square); PoinTr's factor 1000 is an accumulator's `scale`. `METRICS` is the table of all metrics; `find` reads it.
Every file here is imported, so a new one can add its metric to the table.
"""

import importlib
import pkgutil

from .accumulator import Accumulator
from .inputs import Pair
from .matched import matched_distance_quantiles, matched_distances
from .pairs import cd_l1, cd_l2, dcd, emd, f_score, hausdorff, uniformity
from .sets import coverage, jsd, minimum_matching_distance, pairwise_distances
from .table import METRICS, Metric, find

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "METRICS", "Accumulator", "Metric", "Pair", "cd_l1", "cd_l2", "coverage", "dcd", "emd", "f_score", "find",
    "hausdorff", "jsd", "matched_distance_quantiles", "matched_distances", "minimum_matching_distance",
    "pairwise_distances", "uniformity",
]  # fmt: skip
