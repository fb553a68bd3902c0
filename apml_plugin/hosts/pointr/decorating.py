"""The two decorators that a patch inserts into a PoinTr-style host: for what builds a model, and what reads a YAML.

This module does not import torch: patched files import it before the host has chosen its devices.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from types import ModuleType
from typing import Any, TypeVar

from ...chosen import VARIABLE
from .. import guard
from ..calls import building

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
_TAKES = "__apml_takes_loss__"
_HOISTS = "__apml_hoists_loss__"
KEYS = ("loss", "loss_opts")
OURS = {"PointGMM": "apml_plugin.hosts.pointr.pointgmm"}
"""Name: the module that holds a class of that name, made from a host's config."""


def takes_loss(obj: T) -> T:
    """Decorator for the function ``build(config, ...)`` that makes models, or for one model class.

    The model trains with the loss that its config names under ``loss:``, or that ``APML_LOSS`` names; without either it
    is unchanged. A class is changed in place and returned, so pickling and registries keep working. Idempotent.
    """
    if isinstance(obj, type) and _TAKES not in vars(obj):
        _wrap_init(obj)
    return obj if hasattr(obj, _TAKES) else _wrap_builder(obj)  # type: ignore[arg-type, return-value]


def hoists_loss(read: F) -> F:
    """Decorator for the function that reads a YAML: a top-level ``loss:`` of ours moves under ``model:``.

    A ``loss:`` that is something else, such as a mapping of weights, stays where it is. ``metrics:`` adds our metrics
    to the host's. Idempotent.
    """
    if hasattr(read, _HOISTS):
        return read

    @functools.wraps(read)
    def reader(*args: Any, **kwargs: Any) -> Any:
        config = hoist(read(*args, **kwargs))
        given: Mapping[str, Any] = config if isinstance(config, Mapping) else {}
        model = given.get("model")
        if isinstance(model, Mapping) and model.get("loss") is not None:
            from ...registry import looks_like_loss

            if looks_like_loss(model["loss"]):
                # What builds the model may not be patched, and would ignore it: then no optimiser may step.
                guard.arm(guard.asked_for(model["loss"], ""))
        if given.get("metrics"):
            from .metrics import add_metrics

            add_metrics(config)
        return config

    setattr(reader, _HOISTS, True)
    return reader  # type: ignore[return-value]


def hoist(config: Any) -> Any:
    """Moves a top-level `loss:` (and `loss_opts:`) of a config under its `model`, in place; returns the config.

    A config without a `model` mapping stays as it is, and so does a `loss:` that is something else, such as weights.
    An unknown name is copied, so that building the model can report it.
    Raises LossArgumentError if both places have a `loss:` and they differ.
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


def _wrap_builder(build: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(build)
    def builder(*args: Any, **kwargs: Any) -> Any:
        config = args[0] if args else next(iter(kwargs.values()), None)
        _offer(build, config)
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

    with building():
        return attach(model, config)


def _is_module(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)


def _may_be_meant_as_loss(value: Any) -> bool:
    """A string, a mapping with a name, or a list. The model's builder then raises for a misspelt name."""
    if isinstance(value, Mapping):
        return any(key in value for key in ("NAME", "type")) or any(
            isinstance(v, str | Mapping) for v in value.values()
        )
    return isinstance(value, str | list | tuple)


def _offer(build: Callable[..., Any], config: Any) -> None:
    """Registers the model that `config` names, if it is one of `OURS` that the host's registry lacks.

    Raises HostError if the registry cannot take a class.
    """
    get = getattr(config, "get", None)
    name = get("NAME") if callable(get) else None
    if not isinstance(name, str) or name not in OURS:
        return
    for registry in _registries(build):
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


def _registries(build: Callable[..., Any]) -> Iterator[Any]:
    """The registry that a bound ``build`` belongs to, or those that a builder function uses."""
    owner = getattr(build, "__self__", None)
    code, scope = getattr(build, "__code__", None), getattr(build, "__globals__", {})
    names = code.co_names if code is not None else ()
    for candidate in [owner] if owner is not None else [scope.get(name) for name in names]:
        if candidate is not None and _is_registry(candidate):
            yield candidate


def _is_registry(value: Any) -> bool:
    """Whether a value is a registry of the host: it has `build` and `register_module`; its class is no library's."""
    kind = type(value)
    if isinstance(value, type | ModuleType) or not callable(getattr(kind, "build", None)):
        return False
    if not callable(getattr(kind, "register_module", None)) or not hasattr(value, "__dict__"):
        return False
    home = getattr(sys.modules.get(kind.__module__), "__file__", None) or ""
    return "site-packages" not in home and "dist-packages" not in home
