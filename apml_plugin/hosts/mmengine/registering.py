"""Putting our names into registries: all of them or none, and never over somebody else's."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS, Registry

from apml_plugin.errors import HostError, LossArgumentError
from apml_plugin.hosts.mmengine.adapters import APMLDistance, PackedLoss
from apml_plugin.hosts.mmengine.completion import CompletionModel
from apml_plugin.hosts.mmengine.config import loss_class
from apml_plugin.hosts.mmengine.hooks import LossEpochHook, MatchedDistanceHook, PredictionPictureHook
from apml_plugin.hosts.mmengine.metric import CompletionMetric
from apml_plugin.hosts.mmengine.mixture import MixtureModel
from apml_plugin.models import PCN, FoldingNet, PointGMM
from apml_plugin.registry import LOSSES, refuse_unknown
from apml_plugin.studies.completion import CompletionShapes

SCOPE = "apml"
_MODELS = (PCN, FoldingNet, PointGMM, CompletionModel, MixtureModel)
_HOOKS = (LossEpochHook, PredictionPictureHook, MatchedDistanceHook)


def _offering(cls: type) -> None:
    """Has a class say an argument that it does not take as our losses do, with the nearest one, parents' included."""
    init: Any = cls.__init__  # type: ignore[misc]
    takes: dict[str, None] = {}
    for owner in (owner for owner in cls.__mro__ if "__init__" in vars(owner)):
        parameters = list(inspect.signature(owner.__init__).parameters.values())[1:]  # type: ignore[misc]
        takes |= {p.name: None for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break

    @functools.wraps(init)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        refuse_unknown(cls.__name__, kwargs, list(takes))
        init(self, *args, **kwargs)

    cls.__init__ = checked  # type: ignore[misc]


for _cls in (*_MODELS[3:], APMLDistance, PackedLoss, CompletionShapes, CompletionMetric, *_HOOKS[1:]):
    _offering(_cls)


def register() -> list[str]:
    """Registers everything of ours with MMEngine, plainly and under the scope ``apml``.

    Returns:
        The names that were added. A second call adds, and returns, only losses registered in ``LOSSES`` since.

    Raises:
        HostError: a name is taken by something that is not ours. Nothing is registered then.
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

    Besides the losses, which are called with ``(pred, gt)`` of shape (B, N, 3), two with other projects' calls:
    ``APMLDistance`` (MMDetection3D's ChamferDistance) and ``PackedLoss`` (Pointcept's packed clouds).

    Projects whose registries descend from MMEngine's, such as MMDetection3D, find our names without this; there it
    is for another ``prefix``, or for a name of theirs that hides one of ours.

    Args:
        registry: anything with ``module_dict`` and ``register_module(name=, module=)``.
        prefix: put before every name: ``register_into(LOSSES, prefix='Point')`` makes ``PointAPML``.

    Returns:
        The names that were added; an empty list the second time.

    Raises:
        HostError: a name is taken by something that is not ours, or ``registry`` is no registry. Nothing is
            registered then.
        LossArgumentError: ``prefix`` is no text, or holds a dot, which registries read as a scope.
    """
    if not hasattr(registry, "module_dict") or not hasattr(registry, "register_module"):
        raise HostError(
            f"registry={registry!r} is no registry: it needs module_dict and register_module(name=, module=), "
            "as MMEngine's and mmcv's have"
        )
    if not isinstance(prefix, str) or "." in prefix:
        raise LossArgumentError(f"prefix={prefix!r} must be text without a dot; registries read a dot as a scope")
    entries = _missing(registry, {prefix + name: cls for name, cls in _losses().items()})
    _add(registry, entries)
    return list(entries)


def _losses() -> dict[str, type]:
    named = {name: loss_class(name, cls) for name, cls in LOSSES.module_dict.items()}
    return {**named, "APMLDistance": APMLDistance, "PackedLoss": PackedLoss}


def _missing(registry: Any, entries: Mapping[str, type]) -> dict[str, type]:
    """The entries that ``registry`` lacks; a HostError if a stranger holds one of the names."""
    held = registry.module_dict
    for name, ours in entries.items():
        if name in held and _path(held[name]) != _path(ours):
            raise HostError(
                f"{name!r} is taken in the {registry.name!r} registry by {_path(held[name])}, so {_path(ours)} cannot "
                "have it. Nothing of apml_plugin was registered; register the other one under another name, or ours "
                "with register_into(registry, prefix=...)"
            )
    return {name: ours for name, ours in entries.items() if name not in held}


def _add(registry: Any, entries: Mapping[str, type]) -> None:
    for name, ours in entries.items():
        registry.register_module(name=name, module=ours)


def _path(thing: Any) -> str:
    # Compared by path, not identity: a reloaded module is not a stranger.
    return f"{thing.__module__}.{getattr(thing, '__qualname__', thing)}"
