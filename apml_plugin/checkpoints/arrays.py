"""NumPy scalars and arrays from what their pickles hold, without NumPy's own unpickling."""

from __future__ import annotations

import math
import re
from typing import Any

from ..errors import CheckpointError
from .placeholders import DTYPE, NDARRAY, Shell

_KINDS = re.compile(r"[biufcSU]\d{1,4}")
_MOST_DIMENSIONS = 32


def scalar(shell: Shell) -> Any:
    """``scalar(dtype, bytes)``. Raises CheckpointError for Python objects, records, dates and wrong lengths."""
    if len(shell.args) != 2 or shell.state is not None:
        raise CheckpointError("holds a NumPy scalar that is not made of a dtype and bytes")
    return _numbers(shell.args[0], shell.args[1], ())[()]


def array(shell: Shell) -> Any:
    """``_reconstruct(ndarray, (0,), b'b')`` and its state ``(1, shape, dtype, fortran, bytes)``."""
    state = shell.state
    if not shell.args or shell.args[0] is not NDARRAY or not isinstance(state, tuple) or len(state) != 5:
        raise CheckpointError("holds a NumPy array that is not made of a shape, a dtype and bytes")
    _, shape, kind, fortran, data = state
    if not (
        isinstance(shape, tuple)
        and len(shape) <= _MOST_DIMENSIONS
        and all(type(size) is int and size >= 0 for size in shape)
    ):
        raise CheckpointError("holds a NumPy array with an impossible shape")
    return _numbers(kind, data, shape, "F" if fortran is True else "C").copy()


def _numbers(kind: Any, data: Any, shape: tuple[int, ...], order: Any = "C") -> Any:
    import numpy as np

    dtype = np.dtype(_dtype(kind))
    if isinstance(data, str):  # written by Python 2
        data = data.encode("latin-1", "replace")
    if not isinstance(data, bytes) or len(data) != math.prod(shape) * dtype.itemsize:
        raise CheckpointError(f"holds a NumPy array of {dtype} whose bytes do not fit its shape")
    return np.ndarray(shape, dtype, data, order=order)


def _dtype(shell: Any) -> str:
    """``dtype('f8', False, True)`` and its state ``(3, '<', ...)`` as '<f8'; only plain numbers and text."""
    known = isinstance(shell, Shell) and type(shell) is DTYPE
    code = shell.args[0] if known and shell.args else None
    code = code.decode("latin-1") if isinstance(code, bytes) else code
    state = shell.state if known else None
    order = state[1] if isinstance(state, tuple) and len(state) > 1 else "="
    order = order.decode("latin-1") if isinstance(order, bytes) else order
    if not isinstance(code, str) or not _KINDS.fullmatch(code) or order not in ("<", ">", "=", "|"):
        described = "Python objects" if isinstance(code, str) and code.startswith("O") else f"dtype {code!r:.40}"
        raise CheckpointError(f"holds a NumPy array of {described}; only numbers and text are read")
    import numpy as np

    try:
        return np.dtype(order + code).str
    except TypeError:
        raise CheckpointError(f"holds a NumPy array of dtype {order + code!r}, which there is not") from None
