"""Assignment by auction (Bertsekas 1988): nearly optimal, with a proof of how nearly, and no N x M memory.

Each point x bids for the y that is cheapest for it, distance plus price, and raises that price until its second choice
is as cheap, plus ``eps``; the previous holder of y bids again. When every x holds a y, the total is at most ``n eps``
above the least one. ``eps`` then shrinks from round to round while the prices stay (eps scaling). Prices p prove a
bound:

    every one-to-one assignment costs at least  sum_i min_j (|x_i - y_j| + p_j) - sum_j p_j.

Rounds go on until the total is within the tolerance of that bound.

Each query keeps a short list of the points that can be its two cheapest: those of its cheapest boxes, and the value
below which no point outside the list can lie. Prices only rise, so that value stays a bound; a list is renewed only
when its second best exceeds it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

FINEST = 1e-6
"""The last eps, as a share of the clouds' extent: where clouds nearly coincide no relative tolerance can be proven."""

COARSEST = 0.25
"""The first eps, as a share of the extent."""

SHRINK = 5.0
"""How much smaller eps is in the next round."""

AT_ONCE = 512
"""Bids at once, at most."""

BOX_POINTS = 16
"""Points in a box, at most."""

LIST_BOXES = 16
"""Boxes in a list."""

BLOCK = 1_000_000
"""Values held at once."""

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Best = tuple[Index, Array, Array, Array]


def auction(x: Array, y: Array, tolerance: float) -> tuple[Index, float]:
    """Index (n,) into ``y`` (m, D) of a one-to-one assignment of ``x`` (n, D), n <= m, and a bound on the mean cost.

    Mean distance <= (1 + tolerance) bound, or <= bound + FINEST; the optimum is never below the bound. Deterministic.
    Coordinates lie in [0, 1].
    """
    state = _Auction(x, y)
    eps = COARSEST
    while True:
        if len(x) < len(y):
            # A price without a holder weakens the bound; starting from zero, only points that are held have one.
            state.start_again()
        state.sell(eps)
        mean, bound = state.mean_and_bound()
        if mean - bound <= tolerance * bound or eps <= FINEST:
            return state.held, max(min(bound, mean), 0.0)
        # With half the tolerance as eps the bound is met for certain; a smaller eps gains nothing.
        eps = max(eps / SHRINK, min(eps / 2, tolerance * bound / 2), FINEST)
        state.release_too_expensive(eps)


class _Auction:
    """The state of the auction: ``held`` (n,) is the y of each x, ``holder`` (m,) the x of each y; -1 is none."""

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
            # With a single y there is no second choice.
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
            # Where many bid for the same y, only one of them wins.
            at_once = min(2 * len(winners), AT_ONCE)

    def mean_and_bound(self) -> tuple[float, float]:
        """Mean distance of the assignment, and the lower bound for every assignment."""
        cheapest = self.lists.nearest(self.all)[2]
        n = len(self.all)
        return float(self.distance.sum()) / n, float(cheapest.sum() - self.lists.total_price()) / n

    def release_too_expensive(self, eps: float) -> None:
        """Takes y from every x that has a choice cheaper by more than ``eps``."""
        cheapest = self.lists.nearest(self.all)[2]
        expensive = self.distance + self.price[self.held] > cheapest + eps
        self.holder[self.held[expensive]] = -1
        self.held[expensive] = -1

    def start_again(self) -> None:
        """Clears the assignment and sets all prices to 0."""
        self.held[:] = -1
        self.holder[:] = -1
        self.lists.free()


class Shortlists:
    """Lists for queries ``x`` (n, D) among points ``y`` (m, D). Memory: 4 KB a query.

    The caller may raise ``price`` (m + 1,), and lower it only by :meth:`free`. Its last entry is infinite and belongs
    to the point that fills up boxes.
    """

    def __init__(self, x: Array, y: Array) -> None:
        self.price = np.zeros(len(y) + 1)
        self.price[-1] = np.inf
        self._x, self._m = x, len(y)
        self._y = np.vstack((y, np.zeros((1, y.shape[1]))))
        self._boxes = _boxes(y)
        inside, real = self._y[self._boxes], (self._boxes < self._m)[..., None]
        self._low = np.where(real, inside, np.inf).min(1)
        self._high = np.where(real, inside, -np.inf).max(1)
        self._kept = min(LIST_BOXES, len(self._boxes))
        length = self._kept * self._boxes.shape[1]
        self._index = np.empty((len(x), length), dtype=np.int64)
        self._distance = np.empty((len(x), length))
        self._outside = np.full(len(x), np.inf)
        self._renew(np.arange(len(x)))

    def nearest(self, rows: Index) -> Best:
        """For the queries ``rows`` (k,): the cheapest point, its distance, its value and the second best value."""
        best = self._best(rows)
        for renew in (self._renew, self._renew_from_all):
            stale = best[3] > self._outside[rows]
            if not stale.any():
                break
            renew(rows[stale])
            for part, newer in zip(best, self._best(rows[stale]), strict=True):
                part[stale] = newer
        return best

    def total_price(self) -> float:
        """Sum of all prices."""
        return float(self.price[:-1].sum())

    def free(self) -> None:
        """Sets every price to 0."""
        self.price[:-1] = 0.0
        self._renew(np.arange(len(self._x)))

    def _best(self, rows: Index) -> Best:
        index, distance = self._index[rows], self._distance[rows]
        values = distance + self.price[index]
        at, first = np.arange(len(rows)), values.argmin(1)
        cheapest = values[at, first]
        values[at, first] = np.inf
        return index[at, first], distance[at, first], cheapest, values.min(1)

    def _renew(self, rows: Index) -> None:
        """Lists from the boxes that may hold the cheapest points: distance to the box plus its lowest price."""
        lowest = self.price[self._boxes].min(1)
        for part in np.array_split(rows, len(rows) * len(self._boxes) // BLOCK + 1):
            if self._kept == len(self._boxes):
                self._fill(part, np.tile(self._boxes.reshape(1, -1), (len(part), 1)))
                continue
            apart = np.zeros((len(part), len(self._boxes)))
            for k in range(self._x.shape[1]):
                at = self._x[part, k][:, None]
                apart += np.square(np.maximum(np.maximum(self._low[:, k] - at, at - self._high[:, k]), 0.0))
            values = np.sqrt(apart) + lowest
            order = np.argpartition(values, self._kept, axis=1)
            self._outside[part] = values[np.arange(len(part)), order[:, self._kept]]
            self._fill(part, self._boxes[order[:, : self._kept]].reshape(len(part), -1))

    def _renew_from_all(self, rows: Index) -> None:
        """Lists from every point, where boxes bound too loosely: its two cheapest are certain to be in the list."""
        length = self._index.shape[1]
        for part in np.array_split(rows, len(rows) * self._m // BLOCK + 1):
            values = cdist(self._x[part], self._y[:-1]) + self.price[:-1]
            order = np.argpartition(values, length, axis=1)
            self._outside[part] = np.take_along_axis(values, order[:, length : length + 1], 1)[:, 0]
            self._fill(part, order[:, :length])

    def _fill(self, rows: Index, index: Index) -> None:
        squared = np.zeros(index.shape)
        for k in range(self._x.shape[1]):
            squared += np.square(self._y[index, k] - self._x[rows, k][:, None])
        self._index[rows], self._distance[rows] = index, np.sqrt(squared)


def _boxes(y: Array) -> Index:
    """(boxes, size) indices of points that are close together; m, one past the last, where a box is not full."""
    groups = [np.arange(len(y))]
    while len(groups[0]) > BOX_POINTS:
        halves = []
        for group in groups:
            points, half = y[group], (len(group) + 1) // 2
            order = np.argpartition(points[:, np.ptp(points, axis=0).argmax()], half - 1)
            halves += [group[order[:half]], group[order[half:]]]
        groups = halves
    size = max(len(group) for group in groups)
    return np.stack([np.pad(group, (0, size - len(group)), constant_values=len(y)) for group in groups])
