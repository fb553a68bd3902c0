"""Models of ours by their names in a PoinTr-style host: ``model: {NAME: PointGMM}``.

Nothing here imports torch: patched files load this before the host has decided on its devices.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

OURS = {"PointGMM": "apml_plugin.models.pointgmm.pointr"}
"""Name: the module that holds a class of that name, made from a host's config."""


def offer(build: Callable[..., Any], config: Any, is_registry: Callable[[Any], bool]) -> None:
    """Before ``build(config)``: if its NAME is a model of ours that the host's registry lacks, it gets it.

    A host's own model of the same name stays. HostError if the host's registry cannot take a class.
    """
    get = getattr(config, "get", None)
    name = get("NAME") if callable(get) else None
    if not isinstance(name, str) or name not in OURS:
        return
    for registry in _registries(build, is_registry):
        if registry.get(name) is None:
            ours = getattr(importlib.import_module(OURS[name]), name)
            try:
                registry.register_module(name=name)(ours)
            except (TypeError, KeyError) as error:
                from ...errors import HostError

                raise HostError(
                    f"this host's registry {registry!r} cannot take the model {name!r} ({error}); register "
                    f"{OURS[name]}.{name} in it by hand, where its own models are"
                ) from None


def _registries(build: Callable[..., Any], is_registry: Callable[[Any], bool]) -> Iterator[Any]:
    """The registry that a bound ``build`` belongs to, or those that a builder function uses."""
    owner = getattr(build, "__self__", None)
    code, scope = getattr(build, "__code__", None), getattr(build, "__globals__", {})
    names = code.co_names if code is not None else ()
    for candidate in [owner] if owner is not None else [scope.get(name) for name in names]:
        if candidate is not None and is_registry(candidate):
            yield candidate
