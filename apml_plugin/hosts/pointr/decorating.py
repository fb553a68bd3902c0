"""The two decorators a patch inserts into a PoinTr-style host.

Nothing here imports torch: patched files load this before the host has decided on its devices.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Mapping, MutableMapping
from types import ModuleType
from typing import Any, TypeVar

from ...chosen import VARIABLE
from .. import guard
from ..interrupted import interrupted
from .models import offer

T = TypeVar("T")
_TAKES = "__apml_takes_loss__"
_HOISTS = "__apml_hoists_loss__"
KEYS = ("loss", "loss_opts")


def takes_loss(obj: T) -> T:
    """See :func:`apml_plugin.hooks.takes_loss`. Twice is as good as once."""
    if interrupted(obj):
        return obj if isinstance(obj, type) else _refusing(obj)  # type: ignore[arg-type, return-value]
    if isinstance(obj, type) and _TAKES not in vars(obj):
        _wrap_init(obj)
    return obj if hasattr(obj, _TAKES) else _wrap_builder(obj)  # type: ignore[arg-type, return-value]


def hoists_loss(read: Callable[..., Any]) -> Callable[..., Any]:
    """See :func:`apml_plugin.hooks.hoists_loss`."""
    if hasattr(read, _HOISTS):
        return read
    if interrupted(read):
        return _refusing(read)

    @functools.wraps(read)
    def reader(*args: Any, **kwargs: Any) -> Any:
        config = hoist(read(*args, **kwargs))
        if isinstance(config, Mapping) and config.get("metrics"):
            from .metrics import add_metrics

            add_metrics(config)
        return config

    setattr(reader, _HOISTS, True)
    return reader


def hoist(config: Any) -> Any:
    """Move a top-level `loss:` (and `loss_opts:`) of a config under its `model`, in place; returns the config.

    Left alone: a config without a `model` mapping, and a `loss:` that is something else, such as weights. A name that
    no loss has is copied, so that building the model can say so.
    Raises LossArgumentError if `loss:` stands in both places and they differ.
    """
    model = config.get("model") if isinstance(config, Mapping) else None
    if not isinstance(config, MutableMapping) or not isinstance(model, MutableMapping) or config.get("loss") is None:
        return config
    from ...errors import LossArgumentError
    from ...registry import looks_like_loss

    loss = config["loss"]
    ours = looks_like_loss(loss)
    if not ours and not _may_be_meant_as_loss(loss):
        return config
    for key in KEYS:
        if config.get(key) is None:
            continue
        if model.get(key) is not None and model[key] != config[key]:
            raise LossArgumentError(
                f"{key}: is given twice, {config[key]!r} at the top of the YAML and {model[key]!r} under model:; "
                "keep one"
            )
        model[key] = config[key]
        if ours:
            config.pop(key)
    return config


def _refusing(function: Callable[..., Any]) -> Callable[..., Any]:
    """In a clone that a patch left half done: what it was, unless a config asks for a loss of ours."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        for config in (result, *args[:1]):
            for part in (config, config.get("model")) if isinstance(config, Mapping) else ():
                from ...registry import looks_like_loss

                if isinstance(part, Mapping) and looks_like_loss(part.get("loss")):
                    guard.stop(f"loss: {part['loss']!r} was asked for in a clone whose patch was interrupted")
        return result

    return call


def _wrap_builder(build: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(build)
    def builder(*args: Any, **kwargs: Any) -> Any:
        config = args[0] if args else next(iter(kwargs.values()), None)
        offer(build, config, _is_registry)
        return _attach(build(*args, **kwargs), config)

    setattr(builder, _TAKES, True)
    return builder


def _wrap_init(cls: type) -> None:
    original = cls.__init__  # type: ignore[misc]

    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        _attach(self, args[0] if args else next(iter(kwargs.values()), None))

    cls.__init__ = init  # type: ignore[misc]
    setattr(cls, _TAKES, True)


def _attach(model: Any, config: Any) -> Any:
    given = [config.get(key) if isinstance(config, Mapping) else getattr(config, key, None) for key in KEYS]
    if (given == [None, None] and not os.environ.get(VARIABLE)) or not _is_module(model):
        return model
    from .attach import attach

    return attach(model, config)


def _is_module(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)


def _may_be_meant_as_loss(value: Any) -> bool:
    """A string, a mapping with a name, a list: for a misspelt name the model's builder shall raise."""
    if isinstance(value, Mapping):
        return any(key in value for key in ("NAME", "type")) or any(
            isinstance(v, str | Mapping) for v in value.values()
        )
    return isinstance(value, str | list | tuple)


def _is_registry(value: Any) -> bool:
    """A registry of the host's own: an instance with `build` and `register_module`, its class no library's."""
    kind = type(value)
    if isinstance(value, type | ModuleType) or not callable(getattr(kind, "build", None)):
        return False
    if not callable(getattr(kind, "register_module", None)) or not hasattr(value, "__dict__"):
        return False
    home = getattr(sys.modules.get(kind.__module__), "__file__", None) or ""
    return "site-packages" not in home and "dist-packages" not in home
