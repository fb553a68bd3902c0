"""Which backend computes a matching, and why: one function decides."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from torch import Tensor

from apml_plugin.errors import BackendError
from apml_plugin.matching.settings import one_of

log = logging.getLogger("apml_plugin.matching")

BACKENDS = ("auto", "native", "sparse", "dense")

DENSE_BELOW = {"cpu": 512 * 512, "cuda": 2048 * 2048}
"""Up to this many pairs of points the whole matrix is cheaper than a neighbour search."""

TREE_DIMENSIONS = 8
"""Above it a neighbour search visits nearly all points, and its bookkeeping is a loss."""


@dataclass(frozen=True)
class Choice:
    """A backend's name and the reason it was chosen."""

    name: str
    reason: str


def native_missing() -> str | None:
    """Why the compiled ops cannot be used, or None."""
    return "this version ships no compiled ops yet"


def choose(requested: str, pred: Tensor, gt: Tensor, differentiate_plan: bool = False) -> Choice:
    """The backend for clouds (B, N, D) and (B, M, D).

    A backend asked for by name is never replaced by another.

    Raises:
        LossValueError: an unknown name.
        BackendError: the backend asked for cannot do this; the message says why and what can.
    """
    one_of("backend", requested, BACKENDS)
    missing = native_missing()
    if requested == "native" and missing:
        raise BackendError(f"backend='native' cannot be used: {missing}; use backend='auto', 'sparse' or 'dense'")
    if requested == "sparse" and differentiate_plan:
        raise BackendError(
            "backend='sparse' holds the plan constant and cannot differentiate it: use backend='dense' (or 'auto') "
            "with differentiate_plan=True"
        )
    if requested != "auto":
        return Choice(requested, "asked for by name")
    choice = _automatic(pred, gt, differentiate_plan)
    log.debug("APML on %s and %s: %s (%s)", tuple(pred.shape), tuple(gt.shape), choice.name, choice.reason)
    return choice


def _automatic(pred: Tensor, gt: Tensor, differentiate_plan: bool) -> Choice:
    n, m, d = pred.shape[1], gt.shape[1], pred.shape[2]
    if differentiate_plan:
        return Choice("dense", "differentiate_plan=True needs the whole plan")
    if d > TREE_DIMENSIONS:
        return Choice("dense", f"{d} coordinates: a neighbour search gains nothing above {TREE_DIMENSIONS}")
    below = DENSE_BELOW.get(pred.device.type, DENSE_BELOW["cpu"])
    if n * m <= below:
        return Choice("dense", f"{n} x {m} points: the whole matrix is cheaper than a search up to {below} pairs")
    return Choice("sparse", f"{n} x {m} points: a neighbour search is cheaper than the whole matrix")
