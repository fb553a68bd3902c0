"""Functions that a host imports but that have no stand-in: they say so when called, not when imported."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn


def unavailable(function: str, needed_by: str, remedy: str) -> Callable[..., NoReturn]:
    """A function that raises RuntimeError naming ``function``, who needs it, and what to install."""

    def call(*args: object, **kwargs: object) -> NoReturn:
        raise RuntimeError(
            f"{function} is a compiled function without a stand-in. It is needed by {needed_by}. {remedy}"
        )

    call.__name__ = call.__qualname__ = function.rpartition(".")[2]
    call.__doc__ = f"Raises RuntimeError: {function} must be compiled. Needed by {needed_by}."
    return call
