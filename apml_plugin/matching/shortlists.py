"""The two cheapest points for a query, distance plus price, while prices rise: a short list for each query.

A list holds the points of the query's cheapest boxes and remembers below which value nothing outside it can lie. Prices
only rise, so that this stays true; only when the list's second best exceeds it is the list made anew.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

BOX_POINTS = 16
"""Points in a box, at most."""

LIST_BOXES = 16
"""Boxes in a list."""

BLOCK = 1_000_000
"""Values held at once."""

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Best = tuple[Index, Array, Array, Array]


class Shortlists:
    """Lists for queries ``x`` (n, D) among points ``y`` (m, D). Memory: 4 KB a query.

    ``price`` (m + 1,) is the caller's to raise, never to lower (see :meth:`free`); its last entry, infinite, belongs
    to a point that fills boxes up.
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
