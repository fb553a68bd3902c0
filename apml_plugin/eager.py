"""Keeps ``torch.compile`` out of code that it could only trace into SciPy."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch

F = TypeVar("F", bound=Callable[..., Any])


def eager(function: F) -> F:
    """Runs ``function`` as it is under ``torch.compile``: one graph break, no tracing inside.

    ``torch.compiler.disable`` as a decorator would do, but it loads the compiler, over a second, on import.
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return torch.compiler.disable(function)(*args, **kwargs)
        return function(*args, **kwargs)

    return call  # type: ignore[return-value]
