"""A misspelt argument of a config, as an error of ours that offers the nearest one."""

from __future__ import annotations

import difflib
import functools
import inspect
from typing import Any, TypeVar

from apml_plugin.errors import LossArgumentError

Class = TypeVar("Class", bound=type)


def names_arguments(cls: Class) -> Class:
    """Class decorator: an argument that ``__init__`` does not take is a LossArgumentError with the nearest name.

    Arguments taken as ``**options`` are looked for in the parent class too.
    """
    init = cls.__init__  # type: ignore[misc]
    takes = _takes(cls)

    @functools.wraps(init)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        for name in kwargs:
            if name not in takes:
                close = difflib.get_close_matches(name, takes, n=1, cutoff=0.5)
                offer = f": did you mean {close[0]!r}?" if close else ""
                raise LossArgumentError(
                    f"{cls.__name__} takes no argument {name!r}{offer} (it takes {', '.join(takes)})"
                )
        init(self, *args, **kwargs)

    if takes:
        cls.__init__ = checked  # type: ignore[misc]
    return cls


def _takes(cls: type) -> list[str]:
    names: list[str] = []
    for owner in cls.__mro__:
        if "__init__" not in vars(owner):
            continue
        parameters = list(inspect.signature(owner.__init__).parameters.values())[1:]  # type: ignore[misc]
        open_ended = [p for p in parameters if p.kind is p.VAR_KEYWORD]
        names += [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        if not open_ended:
            break
    return list(dict.fromkeys(names))
