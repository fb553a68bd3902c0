"""Plain values in the place of the shells that a checkpoint was read with."""

from __future__ import annotations

import argparse
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from ..errors import CheckpointError
from . import arrays
from .placeholders import ALL, METRICS, NAMESPACE, OWN, RECONSTRUCTS, SCALARS, Shell, name_of


def restore(value: Any) -> Any:
    """``value`` with every shell in it replaced: metrics by the dict of their values, losses of ours by what a YAML
    would say, NumPy's by NumPy values.

    Lists and dicts are changed in place. A Chamfer or EMD object, which holds nothing, stays the shell it is.
    Raises CheckpointError for NumPy pieces that are not plain numbers, and for nesting beyond Python's limit.
    """
    try:
        return _restore(value, {})
    except RecursionError:
        raise CheckpointError("is nested too deeply to be a checkpoint") from None


def _restore(value: Any, done: dict[int, Any]) -> Any:
    if id(value) in done:
        return done[id(value)][1]
    kind = type(value)
    if kind is type and value in ALL:
        return name_of(value)
    if kind not in (dict, OrderedDict, list, tuple, set) and not isinstance(value, Shell):
        return value
    done[id(value)] = (value, value)  # the first keeps it alive: an id is only good that long
    result = _shell(value, done) if isinstance(value, Shell) else _container(value, kind, done)
    done[id(value)] = (value, result)
    return result


def _container(value: Any, kind: Any, done: dict[int, Any]) -> Any:
    if kind is list:
        value[:] = [_restore(item, done) for item in value]
    elif kind in (tuple, set):
        return kind(_restore(item, done) for item in value)
    else:
        items = [(_restore(key, done), _restore(item, done)) for key, item in kind.items(value)]
        kind.clear(value)
        for key, item in items:
            kind.__setitem__(value, key, item)
        if kind is OrderedDict and vars(value):  # an EasyDict's attributes, a state dict's versions
            _restore(vars(value), done)
    return value


def _shell(shell: Shell, done: dict[int, Any]) -> Any:
    kind = type(shell)
    if kind in SCALARS:
        return arrays.scalar(shell)
    if kind in RECONSTRUCTS:
        return arrays.array(shell)
    if kind in METRICS:
        return _metrics(_attributes(shell, done))
    if kind in NAMESPACE:
        namespace = argparse.Namespace()
        vars(namespace).update(_attributes(shell, done))
        return namespace
    if kind in OWN:
        return _loss(kind.__qualname__, _attributes(shell, done))
    return shell


def _attributes(shell: Shell, done: dict[int, Any]) -> dict[str, Any]:
    state = _restore(shell.state, done)
    return {key: value for key, value in state.items() if isinstance(key, str)} if type(state) is dict else {}


def _loss(name: str, attributes: dict[str, Any]) -> Any:
    """A loss of ours as a YAML would give it: its name, its arguments, the losses in it."""
    inner = attributes.get("_modules")
    parts = dict(dict.items(inner)) if isinstance(inner, dict) else {}
    if name == "ModuleList":
        return list(parts.values())
    settings = attributes.pop("settings", None)
    plain = {key: value for key, value in attributes.items() if not key.startswith("_") and key != "training"}
    named = {} if name in ("ModuleDict", "Settings") else {"NAME": name}
    return {**named, **(settings if type(settings) is dict else {}), **plain, **parts}


def _metrics(attributes: dict[str, Any]) -> dict[str, Any]:
    """As the host's ``Metrics.state_dict()``: name of each item -> value; else the attributes as they are."""
    items, values = attributes.get("_items"), attributes.get("_values")
    if not isinstance(items, list) or not isinstance(values, list) or len(items) != len(values):
        return attributes
    names: list[Any] = [item.get("name") for item in items if isinstance(item, Mapping)]
    if len(names) != len(values) or not all(isinstance(name, str) for name in names):
        return attributes
    return dict(zip(names, values, strict=True))
