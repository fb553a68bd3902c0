"""The numbers that define a matching, checked once, and the search for the threshold of ``threshold="auto"``."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from apml_plugin.arguments import number, one_of, positive, positive_whole, whole
from apml_plugin.errors import LossValueError

TIES = ("share", "uniform")
NORMS = ("L1", "L2")
FAST_UNEQUAL = ("balanced", "smaller", "raise")
MOST_NEIGHBOURS = 64
AUTO = "auto"

START = 1e-20
"""The first threshold that ``"auto"`` tries."""

TOLERANCE = 1e-6
"""``"auto"`` accepts a threshold that leaves out at most this share of a plan's mass."""

ROUNDS = 6
SMALLEST = 1e-300

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """What APML computes, apart from where it is computed.

    Args:
        p_min: least probability of the nearest point in each one-sided softmin, ``0 <= p_min < 1``.
        threshold: similarities at or below it are left out by the sparse backend, ``0 < threshold < 1``;
            ``"auto"`` lowers it until at most 1e-6 of a plan's mass can be left out. The dense backend keeps every
            entry and ignores it.
        iterations: Sinkhorn iterations, ``>= 0``.
        eps: added to every row and column sum in Sinkhorn, ``> 0``.
        ties: ``"share"``: equally near points share the probability; ``"uniform"``: the published code's
            rule, a row whose two nearest costs are equal spreads over *all* points.

    Raises:
        LossArgumentError: a value of the wrong type.
        LossValueError: a value out of range.
    """

    p_min: float = 0.8
    threshold: float | str = 1e-20
    iterations: int = 20
    eps: float = 1e-8
    ties: str = "share"

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        set_(self, "p_min", number("p_min", self.p_min))
        set_(self, "eps", positive("eps", self.eps, "1e-8"))
        set_(self, "iterations", whole("iterations", self.iterations))
        if not 0 <= self.p_min < 1:
            raise LossValueError(f"p_min={self.p_min!r} must lie in [0, 1): it is a probability; 0.8 is usual")
        if self.iterations < 0:
            raise LossValueError(f"iterations={self.iterations!r} must be 0 or more; 20 is usual")
        if self.threshold != AUTO:
            set_(self, "threshold", number("threshold", self.threshold, or_words=(AUTO,)))
            if not 0 < self.threshold < 1:  # type: ignore[operator]
                raise LossValueError(
                    f"threshold={self.threshold!r} must lie in (0, 1) or be 'auto'; 1e-20 is exact to float32, "
                    "and backend='dense' keeps every entry"
                )
        one_of("ties", self.ties, TIES)


@dataclass(frozen=True)
class FastSettings:
    """How a fast matching is made.

    Args:
        restarts: matchings that are made, each with trees of its own, and merged.
        neighbours: points of each cloud that a point tries to exchange partners with, at most 64.
        passes: rounds of swaps, at most; 0 for none.
        norm: ``"L1"``: the cost of a pair is its distance; ``"L2"``: its squared distance.
        unequal: where the clouds differ in number, m > n: ``"balanced"``: each point of the larger one has a partner,
            and each point of the smaller one has floor(m / n) or ceil(m / n); ``"smaller"``: each point of the smaller
            one has a partner, the surplus has none; ``"raise"`` an error.
        seed: of the random planes.

    Raises:
        LossArgumentError: a value of the wrong type.
        LossValueError: a value out of range.
    """

    restarts: int = 2
    neighbours: int = 8
    passes: int = 4
    norm: str = "L1"
    unequal: str = "balanced"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("restarts", "neighbours"):
            positive_whole(name, getattr(self, name))
        if self.neighbours > MOST_NEIGHBOURS:
            raise LossValueError(f"neighbours={self.neighbours!r} must be at most {MOST_NEIGHBOURS}; 8 is usual")
        object.__setattr__(self, "passes", whole("passes", self.passes))
        if self.passes < 0:
            raise LossValueError(f"passes={self.passes!r} must be 0 or more; 4 is usual")
        object.__setattr__(self, "seed", whole("seed", self.seed))
        one_of("norm", self.norm, NORMS)
        one_of("unequal", self.unequal, FAST_UNEQUAL)

    @property
    def key(self) -> int:
        """The seed as the 64 bits, with sign, that the ops take."""
        return (self.seed + 2**63) % 2**64 - 2**63

    def matched(self, n: int, m: int) -> int:
        """How many pairs clouds of n and m points have."""
        return 0 if n == 0 or m == 0 else min(n, m) if self.unequal == "smaller" else max(n, m)


def resolve_threshold(
    settings: Settings, run: Callable[[float], T], dropped: Callable[[T], Sequence[float]], masses: Sequence[int]
) -> T:
    """``run(threshold)``. With ``threshold="auto"`` it is repeated at smaller ones until little enough is left out.

    Args:
        run: computes plans at a threshold.
        dropped: for each plan of a result, the most mass that its left-out entries can carry.
        masses: the mass of each plan.

    Warns after ROUNDS thresholds, with the share of the mass that may be missing.
    """
    if settings.threshold != AUTO:
        return run(float(settings.threshold))
    threshold = START
    for attempt in range(1, ROUNDS + 1):
        result = run(threshold)
        over = [(lost, mass) for lost, mass in zip(dropped(result), masses, strict=True) if lost > TOLERANCE * mass]
        if not over:
            break
        if attempt == ROUNDS or threshold <= SMALLEST:
            share = max(lost / mass for lost, mass in over)
            warnings.warn(
                f"threshold='auto' stopped at {threshold:.0e}: entries of at most {share:.1e} of the plan's mass "
                "were dropped; backend='dense' keeps all of them",
                stacklevel=2,
            )
            break
        # The bound is linear in the threshold while the scaling stays; the factor allows for a change of the scaling.
        wanted = min(
            threshold * TOLERANCE * mass / lost * 1e-2 if lost < 1e250 else threshold**2 for lost, mass in over
        )
        threshold = max(wanted, threshold**3, SMALLEST)
    return result
