"""Names that NumPy dropped and hosts use: np.float and the like (1.24), np.asscalar (1.23), fromstring (2.3).

They come back only where they are missing, and are announced when the first one is used.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

from apml_plugin.launch.announce import tell

ALIASES: dict[str, Any] = {"float": float, "int": int, "bool": bool, "object": object}


def prepare(numpy: ModuleType) -> None:
    """Has ``numpy`` answer for the names it dropped."""
    gone: dict[str, Any] = {name: value for name, value in ALIASES.items() if name not in vars(numpy)}
    if "asscalar" not in vars(numpy):
        gone["asscalar"] = lambda array: array.item()
    numpy.__getattr__ = _answering(vars(numpy).get("__getattr__"), gone)  # type: ignore[method-assign]
    numpy.fromstring = _reading_bytes(numpy)  # type: ignore[attr-defined]


def _answering(before: Callable[[str], Any] | None, gone: dict[str, Any]) -> Callable[[str], Any]:
    def __getattr__(name: str) -> Any:
        if name in gone:
            tell("numpy", f"np.{name}, which this NumPy has no more, is given as it was; others like it too")
            return gone[name]
        if before is None:
            raise AttributeError(f"module 'numpy' has no attribute {name!r}")
        return before(name)

    return __getattr__


def _reading_bytes(numpy: Any) -> Callable[..., Any]:
    fromstring = numpy.fromstring

    @functools.wraps(fromstring)
    def call(string: Any, dtype: Any = float, count: int = -1, *, sep: str = "", **kwargs: Any) -> Any:
        if sep or kwargs or isinstance(string, str):
            return fromstring(string, dtype, count, sep=sep, **kwargs)
        tell("fromstring", "np.fromstring of bytes, gone from NumPy, is answered by np.frombuffer")
        return numpy.frombuffer(string, dtype, count).copy()

    return call
