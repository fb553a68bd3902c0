"""The numbers that define a matching, checked once, and the thresholds of ``threshold="auto"``."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from apml_plugin.arguments import number, one_of, positive, positive_whole, whole
from apml_plugin.errors import LossValueError

TIES = ("share", "uniform")
NORMS = ("L1", "L2")
FAST_UNEQUAL = ("balanced", "smaller", "raise")
MOST_NEIGHBOURS = 64
AUTO = "auto"

ROUNDS = 6
SMALLEST = 1e-300


@dataclass(frozen=True)
class Settings:
    """What APML computes, apart from where it is computed.

    Args:
        p_min: least probability of the nearest point in each one-sided softmin, ``0 <= p_min < 1``.
        threshold: similarities at or below it are left out, ``0 < threshold < 1``. ``"auto"`` finds one for each
            point, such that the entries left out carry at most 1e-5 of the plan's mass, for float64 1e-12: a proven
            bound, which the true value is far below. The dense backend keeps every entry and ignores it.
        iterations: Sinkhorn iterations, ``>= 0``.
        eps: added to every row and column sum in Sinkhorn, ``> 0``.
        ties: ``"share"``: equally near points share the probability; ``"uniform"``: the published code's
            rule, a row whose two nearest costs are equal spreads over *all* points.

    Raises:
        LossArgumentError: a value of the wrong type.
        LossValueError: a value out of range.
    """

    p_min: float = 0.8
    threshold: float | str = AUTO
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
                    f"threshold={self.threshold!r} must lie in (0, 1) or be 'auto', which is exact to float32; "
                    "backend='dense' keeps every entry"
                )
        one_of("ties", self.ties, TIES)

    @property
    def number(self) -> float:
        """The threshold as the compiled ops take it: 0 for ``"auto"``."""
        return 0.0 if self.threshold == AUTO else float(self.threshold)


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


def tolerance(dtype: torch.dtype) -> float:
    """``"auto"`` leaves out at most this share of a plan's mass: the loss is exact to the precision of the clouds."""
    return 1e-12 if dtype == torch.float64 else 1e-5


def first_threshold(candidates: int, p_min: float, dtype: torch.dtype) -> float:
    """The largest threshold of ``"auto"``: a share of the least similarity that the runner-up of K points may have."""
    return 0.5 if candidates < 2 else 1e-2 * tolerance(dtype) * (1.0 - p_min) / (candidates - 1)


def next_thresholds(now: Tensor, most: float, scaling: Tensor, share: Tensor, others: Tensor) -> Tensor:
    """The thresholds (n,) of points at which the entries that each leaves out carry at most a quarter of ``most``.

    A quarter, because leaving out less changes the scaling. An entry that point i leaves out is below
    ``now[i] * share[i] / 2 * scaling[i]`` times its partner's scaling, whatever the partner is.

    Args:
        scaling: of these points, (n,).
        share: 1 / denominator of each point's softmin, (n,); 0 where nothing is left out.
        others: the sum of the partners' scalings, 0-dim.
    """
    wanted = (0.25 * most / (scaling * share * others)).clamp_min(SMALLEST)
    return torch.where(wanted < now, wanted, now)


def warn_if_inexact(settings: Settings, dtype: torch.dtype, dropped: Sequence[float], masses: Sequence[int]) -> None:
    """Warns if ``threshold="auto"`` had to end with entries left out of plans that could carry too much.

    Args:
        dropped: for each plan, the most mass that its left-out entries can carry.
        masses: the mass of each plan.
    """
    if settings.threshold != AUTO:
        return
    share = max((lost / mass for lost, mass in zip(dropped, masses, strict=True) if mass), default=0.0)
    if share > tolerance(dtype):
        warnings.warn(
            f"threshold='auto' stopped after {ROUNDS} rounds: entries of at most {share:.1e} of the plan's mass were "
            "left out; backend='dense' keeps all of them",
            stacklevel=2,
        )
