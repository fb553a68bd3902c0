"""Keeps torch.compile out of functions that it cannot trace. Does not import PyTorch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def eager(traceable: Callable[..., Any] | None = None) -> Callable[[F], F]:
    """Decorates a function that torch.compile must not trace: it runs as it is, with one graph break.

    ``torch.compiler.disable`` as a decorator would do the same, but it loads the compiler on import, which takes over
    a second.

    Args:
        traceable: a function that torch.compile tries first. If it returns anything but None there is no graph break.
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            import torch

            if torch.compiler.is_compiling():
                result = None if traceable is None else traceable(*args, **kwargs)
                return torch.compiler.disable(function)(*args, **kwargs) if result is None else result
            return function(*args, **kwargs)

        return call  # type: ignore[return-value]

    return decorate
