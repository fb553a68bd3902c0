"""Placeholders for the classes that hosts and NumPy leave in a checkpoint, and the plain values made of them.

PyTorch's weights-only reader looks a name up in a table and calls what it finds there. This module is that table for
names that PyTorch does not know. A placeholder keeps the values that it is given and does nothing else: it never
imports the module it is named after, and a file can set none of its attributes. Names that are not listed stay
rejected. NumPy's own unpickling is not used either, because it trusts the sizes and types in a file.
"""

from __future__ import annotations

import argparse
import math
import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from ..errors import CheckpointError
from . import own

_METRICS = {
    "utils.metrics": ("Metrics",),
    "tools.runner_pretrain": ("Acc_Metric",),
    "tools.runner_finetune": ("Acc_Metric",),
}
_DISTANCES = {
    "extensions.chamfer_dist": (
        "ChamferDistance",
        "ChamferDistanceL1",
        "ChamferDistanceL1_PM",
        "ChamferDistanceL2",
        "ChamferDistanceL2_split",
    ),
    "extensions.emd.emd_module": ("emdModule",),
}
_NUMPY = {  # NumPy 2 renamed the module
    "numpy": ("dtype", "ndarray"),
    "numpy.core.multiarray": ("scalar", "_reconstruct"),
    "numpy._core.multiarray": ("scalar", "_reconstruct"),
}


_KINDS = re.compile(r"[biufcSU]\d{1,4}")
_MOST_DIMENSIONS = 32


class Placeholder:
    """In place of an object that was not made: the arguments and the state that it would have got."""

    __slots__ = ("args", "state")

    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        self = object.__new__(cls)
        self.args, self.state = args, None
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(f"{name_of(type(self))} was kept as plain values of a checkpoint and cannot be saved again")

    def __repr__(self) -> str:
        return f"<{name_of(type(self))} of a checkpoint, not made>"


class _Mapping:
    """In place of an EasyDict: an OrderedDict, the only mapping whose attributes the weights-only reader sets."""

    __slots__ = ()

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return OrderedDict()


class _NoBytes:
    """``bytes()``, which pickles call for an empty value. With arguments it could allocate any amount of memory."""

    __slots__ = ()

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        if args:
            raise TypeError("the file asks for bytes of something")
        return b""


def _placeholders(table: Mapping[str, tuple[str, ...]], kind: type = Placeholder) -> tuple[type, ...]:
    """A subclass of ``kind`` for each name. PyTorch's reader finds a class by its module and name."""
    return tuple(
        type(name, (kind,), {"__module__": module, "__qualname__": name, "__slots__": ()})
        for module, names in table.items()
        for name in names
    )


def name_of(placeholder: type) -> str:
    return f"{placeholder.__module__}.{placeholder.__qualname__}"


METRICS = _placeholders(_METRICS)
DISTANCES = _placeholders(_DISTANCES)
NAMESPACE = _placeholders({"argparse": ("Namespace",)})
MAPPING = _placeholders({"easydict": ("EasyDict",)}, _Mapping)
_ARRAYS = _placeholders(_NUMPY)
DTYPE, NDARRAY = _ARRAYS[:2]
SCALARS, RECONSTRUCTS = _ARRAYS[2::2], _ARRAYS[3::2]

_BYTES = _placeholders({"builtins": ("bytes",)}, _NoBytes)

OWN = _placeholders(own.classes())
ALL: tuple[type, ...] = (*_BYTES, *METRICS, *DISTANCES, *NAMESPACE, *MAPPING, *_ARRAYS, *OWN)
NAMES = frozenset(map(name_of, ALL))


def restore(value: Any) -> Any:
    """``value`` with its placeholders replaced: metrics by a dict of their values, losses of this package by what a
    YAML would say, those of NumPy by NumPy values.

    Lists and dicts are changed in place. A Chamfer or EMD object holds no values and stays a placeholder.
    Raises CheckpointError for NumPy objects that are not plain numbers, and for nesting beyond Python's limit.
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
    if kind not in (dict, OrderedDict, list, tuple, set) and not isinstance(value, Placeholder):
        return value
    done[id(value)] = (value, value)  # kept alive, so that its id is not used again
    result = _value_of(value, done) if isinstance(value, Placeholder) else _container(value, kind, done)
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


def _value_of(placeholder: Placeholder, done: dict[int, Any]) -> Any:
    kind = type(placeholder)
    if kind in SCALARS:
        return _scalar(placeholder)
    if kind in RECONSTRUCTS:
        return _array(placeholder)
    if kind in METRICS:
        return _metrics(_attributes(placeholder, done))
    if kind in NAMESPACE:
        namespace = argparse.Namespace()
        vars(namespace).update(_attributes(placeholder, done))
        return namespace
    if kind in OWN:
        return _loss(kind.__qualname__, _attributes(placeholder, done))
    return placeholder


def _attributes(placeholder: Placeholder, done: dict[int, Any]) -> dict[str, Any]:
    state = _restore(placeholder.state, done)
    return {key: value for key, value in state.items() if isinstance(key, str)} if type(state) is dict else {}


def _loss(name: str, attributes: dict[str, Any]) -> Any:
    """A loss of this package as a YAML would give it: its name, its arguments, its inner losses."""
    inner = attributes.get("_modules")
    parts = dict(dict.items(inner)) if isinstance(inner, dict) else {}
    if name == "ModuleList":
        return list(parts.values())
    settings = attributes.pop("settings", None)
    plain = {key: value for key, value in attributes.items() if not key.startswith("_") and key != "training"}
    named = {} if name in ("ModuleDict", "Settings") else {"NAME": name}
    return {**named, **(settings if type(settings) is dict else {}), **plain, **parts}


def _metrics(attributes: dict[str, Any]) -> dict[str, Any]:
    """{name of an item: value} as the host's ``Metrics.state_dict()`` gives; other attributes as they are."""
    items, values = attributes.get("_items"), attributes.get("_values")
    if not isinstance(items, list) or not isinstance(values, list) or len(items) != len(values):
        return attributes
    names: list[Any] = [item.get("name") for item in items if isinstance(item, Mapping)]
    if len(names) != len(values) or not all(isinstance(name, str) for name in names):
        return attributes
    return dict(zip(names, values, strict=True))


def _scalar(placeholder: Placeholder) -> Any:
    """``scalar(dtype, bytes)``. Raises CheckpointError for Python objects, records, dates and wrong lengths."""
    if len(placeholder.args) != 2 or placeholder.state is not None:
        raise CheckpointError("holds a NumPy scalar that is not made of a dtype and bytes")
    return _numbers(placeholder.args[0], placeholder.args[1], ())[()]


def _array(placeholder: Placeholder) -> Any:
    """``_reconstruct(ndarray, (0,), b'b')`` and its state ``(1, shape, dtype, fortran, bytes)``."""
    state = placeholder.state
    if not placeholder.args or placeholder.args[0] is not NDARRAY or not isinstance(state, tuple) or len(state) != 5:
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


def _dtype(placeholder: Any) -> str:
    """``dtype('f8', False, True)`` and its state ``(3, '<', ...)`` as '<f8'; only plain numbers and text."""
    known = isinstance(placeholder, Placeholder) and type(placeholder) is DTYPE
    code = placeholder.args[0] if known and placeholder.args else None
    code = code.decode("latin-1") if isinstance(code, bytes) else code
    state = placeholder.state if known else None
    order = state[1] if isinstance(state, tuple) and len(state) > 1 else "="
    order = order.decode("latin-1") if isinstance(order, bytes) else order
    if not isinstance(code, str) or not _KINDS.fullmatch(code) or order not in ("<", ">", "=", "|"):
        described = "Python objects" if isinstance(code, str) and code.startswith("O") else f"dtype {code!r:.40}"
        raise CheckpointError(f"holds a NumPy array of {described}; only numbers and text are supported")
    import numpy as np

    try:
        return np.dtype(order + code).str
    except TypeError:
        raise CheckpointError(f"holds a NumPy array of dtype {order + code!r}, which does not exist") from None
