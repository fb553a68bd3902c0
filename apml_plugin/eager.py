"""Keeps ``torch.compile`` out of code that it cannot trace, or gives it what it can trace. Imports no torch itself."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def eager(traced: str | None = None) -> Callable[[F], F]:
    """Decorates a function that torch.compile is not to look into: it runs as it is, one graph break.

    ``torch.compiler.disable`` as a decorator would do, but it loads the compiler, over a second, on import.

    Args:
        traced: name of a function in ``apml_plugin.traced`` that is tried first under torch.compile; if it
            returns a tensor there is no graph break.
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            import torch

            if torch.compiler.is_compiling():
                if traced is not None:
                    from apml_plugin import traced as module

                    result = getattr(module, traced)(*args, **kwargs)
                    if result is not None:
                        return result
                return torch.compiler.disable(function)(*args, **kwargs)
            return function(*args, **kwargs)

        return call  # type: ignore[return-value]

    return decorate
