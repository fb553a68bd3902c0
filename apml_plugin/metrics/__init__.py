"""What a loss is judged by. All take (pred, gt), one pair of clouds or a batch of them, and give no gradient."""

from .chamfer import cd_l1, cd_l2
from .emd import emd
from .fscore import f_score
from .uniformity import uniformity

__all__ = ["cd_l1", "cd_l2", "emd", "f_score", "uniformity"]
