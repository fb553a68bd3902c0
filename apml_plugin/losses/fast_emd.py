"""Earth mover's distance at the price of a neighbour search, for training."""

from __future__ import annotations

from torch import Tensor

from apml_plugin.arguments import flag, one_of
from apml_plugin.eager import eager
from apml_plugin.functional import REDUCTIONS, fast_emd
from apml_plugin.losses.base import PointLoss, declare
from apml_plugin.matching import Lengths
from apml_plugin.matching.inputs import wants_gradients
from apml_plugin.matching.settings import FastSettings

CALLS = 1 << 24
"""Seeds kept apart for the calls of an epoch, and as many for the epochs."""


@declare()
class FastEMD(PointLoss):
    """Earth mover's distance of a nearly optimal one-to-one matching, found by random trees and swaps.

    Never below the exact value; about 12 % above it for close clouds and 0.1 % for far ones, less with ``restarts``.
    Points that it moves end on the target one to one. O(N + M) memory. Gradients go to both clouds with the partners
    held constant. NaN and Inf always raise an error.

    In training each call that records a gradient matches by new random trees: their number within the epoch, the epoch
    (where the host passes it on through ``set_epoch``) and ``seed`` determine them, so that a repeated run, every
    process of a parallel one and a run resumed after an epoch match alike. All other calls use the trees of ``seed``
    itself: evaluation is repeatable and does not disturb training. Nothing enters a checkpoint.

    Args:
        restarts: matchings that are made and merged; 1 is the fastest, 8 nearly halve the error in 2.5 times the time.
        neighbours: points of each cloud that a point tries to exchange partners with, at most 64.
        passes: rounds of swaps, at most.
        norm: ``"L1"``: mean distance, in the unit of the coordinates; ``"L2"``: mean squared distance.
        unequal: where pred and gt differ in number: ``"balanced"``: each point of the larger cloud (m points) has a
            partner, and each point of the smaller one (n points) has floor(m / n) or ceil(m / n) of them;
            ``"smaller"``: each point of the smaller cloud has a partner and the surplus of the larger one stays out
            (gradient 0), for a partial gt; ``"raise"`` an error.
        reduction: ``"mean"`` over matched pairs and batch; ``"sum"`` over the matched pairs, averaged over the batch;
            ``"none"``: the means, (B,).
        seed: of the random trees.
        ignore_zeros: drop points whose coordinates are all 0.
    """

    def __init__(
        self,
        restarts: int = 2,
        neighbours: int = 8,
        passes: int = 4,
        norm: str = "L1",
        unequal: str = "balanced",
        reduction: str = "mean",
        seed: int = 0,
        ignore_zeros: bool = False,
    ) -> None:
        super().__init__()
        settings = FastSettings(restarts, neighbours, passes, norm, unequal, seed)
        self.restarts, self.neighbours, self.passes = settings.restarts, settings.neighbours, settings.passes
        self.norm, self.unequal, self.seed = settings.norm, settings.unequal, settings.seed
        self.reduction = one_of("reduction", reduction, REDUCTIONS)
        self.ignore_zeros = flag("ignore_zeros", ignore_zeros)
        self.epoch = self.calls = 0

    def set_epoch(self, epoch: int) -> None:
        """Counts the calls of a new epoch from 0."""
        if epoch != self.epoch:
            self.epoch, self.calls = int(epoch), 0

    def next_seed(self) -> int:
        """The seed of the next training call."""
        self.calls += 1
        return (self.seed * CALLS + self.epoch) * CALLS + self.calls

    def forward(self, pred: Tensor, gt: Tensor, pred_lengths: Lengths = None, gt_lengths: Lengths = None) -> Tensor:
        return _evaluate(self, pred, gt, pred_lengths, gt_lengths)


@eager()  # torch.compile would compile anew for every seed
def _evaluate(loss: FastEMD, pred: Tensor, gt: Tensor, pred_lengths: Lengths, gt_lengths: Lengths) -> Tensor:
    options = loss.options()
    if loss.training and isinstance(pred, Tensor) and isinstance(gt, Tensor) and wants_gradients(pred, gt):
        options["seed"] = loss.next_seed()
    value: Tensor = fast_emd(pred, gt, pred_lengths=pred_lengths, gt_lengths=gt_lengths, **options)
    return value
