"""Checks of arguments. Each error names the argument, shows what was given and says how to write it."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterable
from typing import Any

from apml_plugin.errors import LossArgumentError, LossValueError


def number(name: str, value: Any, or_words: tuple[str, ...] = ()) -> float:
    """A float from a number or from a string that YAML 1.1 left as text (``1e-20`` without a point).

    Raises:
        LossArgumentError: anything else. LossValueError: NaN.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
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


def positive(name: str, value: Any, usual: str = "") -> float:
    """A number above 0 and finite; ``usual`` is what the error recommends."""
    result = number(name, value)
    if not 0 < result < math.inf:
        raise LossValueError(f"{name}={value!r} must be positive and finite" + (usual and f"; {usual} is usual"))
    return result


def not_negative(name: str, value: Any, usual: str = "") -> float:
    """A number of 0 or more, finite; ``usual`` is what the error recommends."""
    result = number(name, value)
    if not 0 <= result < math.inf:
        raise LossValueError(f"{name}={value!r} must be 0 or more and finite" + (usual and f"; {usual} is usual"))
    return result


def between(name: str, value: Any, low: float, high: float) -> float:
    """A number strictly between two others."""
    result = number(name, value)
    if not low < result < high:
        raise LossValueError(f"{name}={value!r} must lie strictly between {low:g} and {high:g}")
    return result


def optional_positive(name: str, value: Any) -> float | None:
    """None, or a number above 0 and finite."""
    return None if value is None else positive(name, value)


def whole(name: str, value: Any) -> int:
    """An int from an integral number; raises LossArgumentError otherwise."""
    result = number(name, value)
    if not result.is_integer():
        raise LossArgumentError(f"{name}={value!r} must be a whole number")
    return int(result)


def positive_whole(name: str, value: Any) -> int:
    """An int of 1 or more, given as an int."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise LossArgumentError(f"{name}={value!r} must be a whole number, got {type(value).__name__}")
    if value < 1:
        raise LossValueError(f"{name}={value!r} must be at least 1")
    return value


def flag(name: str, value: Any) -> bool:
    """A bool; raises LossArgumentError for anything else, the string 'False' included."""
    if not isinstance(value, bool):
        raise LossArgumentError(f"{name}={value!r} must be true or false, got {type(value).__name__}")
    return value


def one_of(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """A string out of ``choices``; raises LossValueError naming them otherwise."""
    if value not in choices:
        raise LossValueError(f"{name}={value!r} must be one of {', '.join(map(repr, choices))}")
    return str(value)


def function(name: str, value: Any, or_formula: bool = False) -> Any:
    """None, a function, or with ``or_formula`` the text of a KeOps formula."""
    if value is None or callable(value) or (or_formula and isinstance(value, str)):
        return value
    formula = " or a KeOps formula such as 'Norm2(X-Y)'" if or_formula else ""
    raise LossArgumentError(f"{name}={value!r} must be a function{formula}, got {type(value).__name__}")


def did_you_mean(name: Any, known: Iterable[str], most: int = 1, cutoff: float = 0.5) -> str:
    """``": did you mean 'p_min'?"``, or "" if no known name is close. Case is ignored."""
    lower = {key.lower(): key for key in known}
    close = difflib.get_close_matches(str(name).lower(), lower, n=most, cutoff=cutoff)
    return f": did you mean {' or '.join(repr(lower[key]) for key in close)}?" if close else ""


def counted(count: int, noun: str) -> str:
    """``"1 file"``, ``"2 files"``."""
    return f"{count:,} {noun}" + "s" * (count != 1)


def reject_unknown(name: Any, arguments: Iterable[Any], takes: Collection[str], what: str = "argument") -> None:
    """Raises LossArgumentError for the first argument that `name` does not take; it offers the nearest one."""
    for key in arguments:
        if key not in takes:
            raise LossArgumentError(
                f"{name} takes no {what} {key!r}{did_you_mean(key, takes)} (it takes {', '.join(takes)})"
            )
