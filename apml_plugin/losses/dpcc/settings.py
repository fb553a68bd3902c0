"""Coefficients of the terms, checked once."""

from __future__ import annotations

import math
from typing import Any

from apml_plugin.errors import LossValueError
from apml_plugin.matching.settings import number


def coefficient(name: str, value: Any) -> float:
    """A finite number of 0 or more."""
    result = number(name, value)
    if not 0 <= result < math.inf:
        raise LossValueError(f"{name}={value!r} must be 0 or more and finite")
    return result
