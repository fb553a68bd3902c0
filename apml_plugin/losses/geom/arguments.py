"""The numbers and functions that these losses take, checked when they are built."""

from __future__ import annotations

import math
from typing import Any

from apml_plugin.errors import LossArgumentError, LossValueError
from apml_plugin.matching.settings import number, whole


def order(p: Any) -> int:
    """p: 1 or 2."""
    if whole("p", p) not in (1, 2):
        raise LossValueError(f"p={p!r} must be 1 (cost d) or 2 (cost d^2/2); for another cost give cost=")
    return whole("p", p)


def positive(name: str, value: Any) -> float:
    result = number(name, value)
    if not 0 < result < math.inf:
        raise LossValueError(f"{name}={value!r} must be positive and finite")
    return result


def optional_positive(name: str, value: Any) -> float | None:
    return None if value is None else positive(name, value)


def between(name: str, value: Any, low: float, high: float) -> float:
    """Strictly between."""
    result = number(name, value)
    if not low < result < high:
        raise LossValueError(f"{name}={value!r} must lie strictly between {low:g} and {high:g}")
    return result


def own_function(name: str, value: Any, formula: bool = False) -> Any:
    """None, a function, or with ``formula`` the text of a KeOps formula."""
    if value is None or callable(value) or (formula and isinstance(value, str)):
        return value
    or_formula = " or a KeOps formula such as 'Norm2(X-Y)'" if formula else ""
    raise LossArgumentError(f"{name}={value!r} must be a function{or_formula}, got {type(value).__name__}")
