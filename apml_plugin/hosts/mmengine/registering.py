"""Registers our classes: all of them or none, and never in place of another project's."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS, Registry

from apml_plugin.arguments import reject_unknown
from apml_plugin.errors import HostError, LossArgumentError
from apml_plugin.hosts.mmengine.adapters import APMLDistance, PackedLoss
from apml_plugin.hosts.mmengine.config import loss_class
from apml_plugin.hosts.mmengine.hooks import LossEpochHook, MatchedDistanceHook, PredictionPictureHook
from apml_plugin.hosts.mmengine.metric import CompletionMetric
from apml_plugin.hosts.mmengine.models import CompletionModel, MixtureModel
from apml_plugin.models import PCN, FoldingNet, PointGMM
from apml_plugin.registry import LOSSES
from apml_plugin.shapes import CompletionShapes

SCOPE = "apml"
_MODELS = (PCN, FoldingNet, PointGMM, CompletionModel, MixtureModel)
_HOOKS = (LossEpochHook, PredictionPictureHook, MatchedDistanceHook)


def _check_arguments(cls: type) -> None:
    """Makes a class reject unknown arguments as our losses do, with the nearest known one (of parents too)."""
    init: Any = cls.__init__  # type: ignore[misc]
    takes: dict[str, None] = {}
    for owner in (owner for owner in cls.__mro__ if "__init__" in vars(owner)):
        parameters = list(inspect.signature(owner.__init__).parameters.values())[1:]  # type: ignore[misc]
        takes |= {p.name: None for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break

    @functools.wraps(init)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        reject_unknown(cls.__name__, kwargs, list(takes))
        init(self, *args, **kwargs)

    cls.__init__ = checked  # type: ignore[misc]


for _cls in (*_MODELS[3:], APMLDistance, PackedLoss, CompletionShapes, CompletionMetric, *_HOOKS[1:]):
    _check_arguments(_cls)


def register() -> list[str]:
    """Registers everything of ours with MMEngine, under plain names and in the scope ``apml``.

    Returns:
        The names that were added. A second call adds and returns only losses that were registered in ``LOSSES`` since.

    Raises:
        HostError: another project holds one of the names. Nothing is registered then.
    """
    wanted: list[tuple[Registry, Mapping[str, type]]] = [
        (MODELS, {**_losses(), **{kind.__name__: kind for kind in _MODELS}}),
        (DATASETS, {"CompletionShapes": CompletionShapes}),
        (METRICS, {"CompletionMetric": CompletionMetric}),
        (HOOKS, {hook.__name__: hook for hook in _HOOKS}),
    ]
    missing = [(registry, _missing(registry, entries)) for registry, entries in wanted]
    for registry, entries in missing:
        scoped = registry.children.get(SCOPE) or Registry(registry.name, parent=registry, scope=SCOPE)
        _add(registry, entries)
        _add(scoped, _missing(scoped, entries))
    return [name for _, entries in missing for name in entries]


def register_into(registry: Any, prefix: str = "") -> list[str]:
    """Registers our losses in a registry of another project: Pointcept's LOSSES, one made with mmcv.

    The losses are called with ``(pred, gt)`` of shape (B, N, 3). Two more have the call of other projects:
    ``APMLDistance`` (MMDetection3D's ChamferDistance) and ``PackedLoss`` (Pointcept's packed clouds).

    Projects whose registries descend from MMEngine's, such as MMDetection3D, find our names without this function.
    They need it only for another ``prefix``, or where a name of theirs hides one of ours.

    Args:
        registry: anything with ``module_dict`` and ``register_module(name=, module=)``.
        prefix: put before every name: ``register_into(LOSSES, prefix='Point')`` makes ``PointAPML``.

    Returns:
        The names that were added; an empty list the second time.

    Raises:
        HostError: another project holds one of the names, or ``registry`` is not a registry. Nothing is registered
            then.
        LossArgumentError: ``prefix`` is not a string, or has a dot, which registries read as a scope.
    """
    if not hasattr(registry, "module_dict") or not hasattr(registry, "register_module"):
        raise HostError(
            f"registry={registry!r} is not a registry: it needs module_dict and register_module(name=, module=), "
            "as MMEngine's and mmcv's have"
        )
    if not isinstance(prefix, str) or "." in prefix:
        raise LossArgumentError(f"prefix={prefix!r} must be a string without a dot; registries read a dot as a scope")
    entries = _missing(registry, {prefix + name: cls for name, cls in _losses().items()})
    _add(registry, entries)
    return list(entries)


def _losses() -> dict[str, type]:
    named = {name: loss_class(name, cls) for name, cls in LOSSES.module_dict.items()}
    return {**named, "APMLDistance": APMLDistance, "PackedLoss": PackedLoss}


def _missing(registry: Any, entries: Mapping[str, type]) -> dict[str, type]:
    """The entries that ``registry`` lacks; raises HostError if another project holds one of the names."""
    held = registry.module_dict
    for name, ours in entries.items():
        if name in held and _path(held[name]) != _path(ours):
            raise HostError(
                f"{name!r} is taken in the {registry.name!r} registry by {_path(held[name])}, so {_path(ours)} cannot "
                "have it. Nothing of apml_plugin was registered. Register the other class under another name, or ours "
                "with register_into(registry, prefix=...)"
            )
    return {name: ours for name, ours in entries.items() if name not in held}


def _add(registry: Any, entries: Mapping[str, type]) -> None:
    for name, ours in entries.items():
        registry.register_module(name=name, module=ours)


def _path(thing: Any) -> str:
    # Compared by path, not by identity: after a reload the class is another object.
    return f"{thing.__module__}.{getattr(thing, '__qualname__', thing)}"
