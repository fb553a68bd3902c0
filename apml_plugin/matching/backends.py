"""Which backend computes a matching, and why: one function decides."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from torch import Tensor

from apml_plugin.errors import BackendError
from apml_plugin.matching import native
from apml_plugin.matching.settings import one_of

log = logging.getLogger("apml_plugin.matching")

BACKENDS = ("auto", "native", "sparse", "dense")

DENSE_BELOW = {"cpu": 512 * 512, "cuda": 2048 * 2048}
"""Up to this many pairs of points the whole matrix is cheaper than a neighbour search."""

TREE_DIMENSIONS = 8
"""Above it a neighbour search visits nearly all points, and its bookkeeping is a loss."""


EXACT_FROM = 1e-20
"""From this threshold down the sparse numbers are the dense ones to float32."""


@dataclass(frozen=True)
class Choice:
    """A backend's name and the reason it was chosen."""

    name: str
    reason: str


def choose(requested: str, pred: Tensor, gt: Tensor, differentiate_plan: bool = False, exact: bool = True) -> Choice:
    """The backend for clouds (B, N, D) and (B, M, D).

    A backend asked for by name is never replaced by another. ``exact``: the threshold is so small that all
    backends give the same numbers; otherwise ``"auto"`` leaves out the dense one, which keeps every entry.

    Raises:
        LossValueError: an unknown name.
        BackendError: the backend asked for cannot do this; the message says why and what can.
    """
    one_of("backend", requested, BACKENDS)
    if requested == "native" and (problem := native_problem(pred)):
        raise BackendError(f"backend='native' cannot be used: {problem}; use backend='auto', 'sparse' or 'dense'")
    if requested == "sparse" and differentiate_plan:
        raise BackendError(
            "backend='sparse' holds the plan constant and cannot differentiate it: use backend='native', 'dense' or "
            "'auto' with differentiate_plan=True"
        )
    if requested != "auto":
        return Choice(requested, "asked for by name")
    choice = _automatic(pred, gt, differentiate_plan, exact)
    log.debug("APML on %s and %s: %s (%s)", tuple(pred.shape), tuple(gt.shape), choice.name, choice.reason)
    return choice


def native_problem(cloud: Tensor) -> str | None:
    """Why the compiled ops cannot take clouds like this (B, N, D) one, or None."""
    if cloud.shape[2] > native.DIMENSIONS:
        return f"the compiled ops take up to {native.DIMENSIONS} coordinates, and these clouds have {cloud.shape[2]}"
    return native.missing(cloud.device.type)


def _automatic(pred: Tensor, gt: Tensor, differentiate_plan: bool, exact: bool) -> Choice:
    n, m, d = pred.shape[1], gt.shape[1], pred.shape[2]
    problem = native_problem(pred)
    if problem is None:
        return Choice("native", f"there are compiled ops for {d} coordinates on {pred.device.type}")
    if differentiate_plan:
        return Choice("dense", f"differentiate_plan=True needs it or the compiled ops, and {problem}")
    if d > TREE_DIMENSIONS:
        return Choice("dense", f"{d} coordinates: a neighbour search gains nothing above {TREE_DIMENSIONS}")
    below = DENSE_BELOW.get(pred.device.type, DENSE_BELOW["cpu"])
    if n * m <= below and exact:
        return Choice("dense", f"{n} x {m} points: the whole matrix is cheaper than a search up to {below}; {problem}")
    return Choice("sparse", f"{n} x {m} points: a neighbour search is cheaper than the whole matrix; {problem}")
