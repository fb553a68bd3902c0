"""The numbers that define a matching, checked once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from apml_plugin.errors import LossArgumentError, LossValueError

MARGIN = 1e-8
"""Added to the gap between the two nearest costs (apml.md, step 2): keeps the temperature finite at a tie."""

TIES = ("share", "uniform")
AUTO = "auto"


@dataclass(frozen=True)
class Settings:
    """What APML computes, apart from where it is computed.

    Args:
        p_min: least probability of the nearest point in each one-sided softmin, ``0 <= p_min < 1``.
        threshold: similarities at or below it are left out by the sparse backend, ``0 < threshold < 1``;
            ``"auto"`` tightens it until the mass of what was left out is bounded (see ``sparse.py``).
            The dense backend keeps everything and ignores it.
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
        set_(self, "eps", number("eps", self.eps))
        set_(self, "iterations", whole("iterations", self.iterations))
        if not 0 <= self.p_min < 1:
            raise LossValueError(f"p_min={self.p_min!r} must lie in [0, 1): it is a probability; 0.8 is usual")
        if not 0 < self.eps < math.inf:
            raise LossValueError(f"eps={self.eps!r} must be positive and finite; 1e-8 is usual")
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


def number(name: str, value: Any, or_words: tuple[str, ...] = ()) -> float:
    """A float from a number or from a string that YAML 1.1 left as text (``1e-20`` without a point).

    Raises:
        LossArgumentError: anything else; the message names the argument and how to write it.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        result = float(value)
    else:
        if not isinstance(value, str):
            raise LossArgumentError(f"{name}={value!r} must be a number, got {type(value).__name__}")
        try:
            result = float(value)
        except ValueError:
            words = "".join(f" or {word!r}" for word in or_words)
            raise LossArgumentError(
                f"{name}={value!r} must be a number{words} (in YAML write 1.0e-20, with the point)"
            ) from None
    if math.isnan(result):
        raise LossValueError(f"{name}={value!r} must not be NaN")
    return result


def whole(name: str, value: Any) -> int:
    """An int from an integral number; raises LossArgumentError otherwise."""
    result = number(name, value)
    if not result.is_integer():
        raise LossArgumentError(f"{name}={value!r} must be a whole number")
    return int(result)


def flag(name: str, value: Any) -> bool:
    """A bool; raises LossArgumentError for anything else, the string 'False' included."""
    if not isinstance(value, bool):
        raise LossArgumentError(f"{name}={value!r} must be true or false, got {type(value).__name__}")
    return value


def one_of(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """A string out of ``choices``; raises LossValueError naming them otherwise."""
    if value not in choices:
        raise LossValueError(f"{name}={value!r} must be one of {', '.join(map(repr, choices))}")
    return value
