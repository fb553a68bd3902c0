"""Assignment by auction (Bertsekas 1988): nearly optimal, with a proof of how nearly, and no N x M memory.

Each point x bids for the y that is cheapest for it, distance plus price, and raises that price until its second choice
is as cheap, plus ``eps``; whoever held y bids again. When every x holds a y, the total is at most ``n eps`` above the
least one. ``eps`` then shrinks from round to round, the prices stay (eps scaling). Prices p prove a bound:

    every one-to-one assignment costs at least  sum_i min_j (|x_i - y_j| + p_j) - sum_j p_j.

Rounds go on until the total is within the tolerance of that bound.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from apml_plugin.matching.shortlists import Shortlists

FINEST = 1e-6
"""The last eps, as a share of the clouds' extent: where clouds all but coincide no relative tolerance can be proven."""

COARSEST = 0.25
"""The first eps, as a share of the extent."""

SHRINK = 5.0
"""How much smaller eps is in the next round."""

AT_ONCE = 512
"""Bids at once, at most."""

Array = NDArray[np.float64]
Index = NDArray[np.int64]


def auction(x: Array, y: Array, tolerance: float) -> tuple[Index, float]:
    """Index (n,) into ``y`` (m, D) of a one-to-one assignment of ``x`` (n, D), n <= m, and a bound on the mean cost.

    Mean distance <= (1 + tolerance) bound, or <= bound + FINEST; the optimum is never below the bound. Deterministic.
    Coordinates lie in [0, 1].
    """
    room = _Room(x, y)
    eps = COARSEST
    while True:
        if len(x) < len(y):
            # A price without a holder weakens the bound; from zero, only what is held ever has one.
            room.start_again()
        room.sell(eps)
        mean, bound = room.mean_and_bound()
        if mean - bound <= tolerance * bound or eps <= FINEST:
            return room.held, max(min(bound, mean), 0.0)
        # Half the tolerance as eps is certain to do; to go below it would be in vain.
        eps = max(eps / SHRINK, min(eps / 2, tolerance * bound / 2), FINEST)
        room.release_what_is_too_dear(eps)


class _Room:
    """Who holds what at which price. ``held`` (n,) is the y of each x, ``holder`` (m,) the x of each y; -1 is none."""

    def __init__(self, x: Array, y: Array) -> None:
        self.lists = Shortlists(x, y)
        self.price = self.lists.price
        self.all = np.arange(len(x))
        self.held = np.full(len(x), -1, dtype=np.int64)
        self.holder = np.full(len(y), -1, dtype=np.int64)
        self.distance = np.zeros(len(x))

    def sell(self, eps: float) -> None:
        """Bids until every x holds a y."""
        waiting = np.flatnonzero(self.held < 0)
        at_once = AT_ONCE
        while len(waiting):
            bidders, waiting = waiting[:at_once], waiting[at_once:]
            item, distance, first, second = self.lists.nearest(bidders)
            # With a single y there is no second choice, and nobody to outbid.
            bid = self.price[item] + np.where(np.isfinite(second), second - first, 0.0) + eps
            before = self.holder[item]
            order = np.argsort(bid, kind="stable")
            self.holder[item[order]] = bidders[order]  # of several bids for one y the last, the highest, stays
            won = self.holder[item] == bidders
            winners, sold, outbid = bidders[won], item[won], before[won]
            self.price[sold] = bid[won]
            outbid = outbid[outbid >= 0]
            self.held[outbid] = -1
            self.held[winners] = sold
            self.distance[winners] = distance[won]
            waiting = np.concatenate((waiting, bidders[~won], outbid))
            # Where many want the same, all bids but one are in vain.
            at_once = min(2 * len(winners), AT_ONCE)

    def mean_and_bound(self) -> tuple[float, float]:
        """Mean distance of the assignment, and what none can be below."""
        cheapest = self.lists.nearest(self.all)[2]
        n = len(self.all)
        return float(self.distance.sum()) / n, float(cheapest.sum() - self.lists.total_price()) / n

    def release_what_is_too_dear(self, eps: float) -> None:
        """Takes y from every x that has one cheaper by more than ``eps``; all others may stay."""
        cheapest = self.lists.nearest(self.all)[2]
        unhappy = self.distance + self.price[self.held] > cheapest + eps
        self.holder[self.held[unhappy]] = -1
        self.held[unhappy] = -1

    def start_again(self) -> None:
        """Nobody holds anything and everything is free."""
        self.held[:] = -1
        self.holder[:] = -1
        self.lists.free()
