"""``loss=`` of an MMEngine config: the grammar of ``build_loss``, in what such configs can write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.registry import MODELS
from torch import nn

from apml_plugin.losses import Schedule
from apml_plugin.registry import LOSSES, build_loss

ENDS = ("first", "last", "from", "to")


def loss_from_config(cfg: Any) -> nn.Module:
    """A loss module from all that ``build_loss`` reads, and from what MMEngine configs hold besides.

    - Full paths (``apml_plugin.losses.apml.APML``), as the lazy config style writes them out.
    - Losses of others in MODELS, alone, for a stage, or as an end of a schedule.

    Runner writes its config out as Python, where the key ``from`` is a syntax error: there a schedule's ends are
    ``first`` and ``last``.

    Raises:
        UnknownLossError, LossArgumentError, LossValueError: as :func:`apml_plugin.registry.build_loss`.
    """
    return build_loss(_readable(cfg))


def loss_class(name: str, cls: type) -> type:
    """A class for registries that builds the loss ``name`` as :func:`loss_from_config` does.

    A registry calls what it holds with the config's arguments, and Python's own complaint about a misspelt one is
    no error of ours. Called by its registered name, a loss answers as in ``loss=``: the nearest argument is
    offered, ``weight`` is understood, and a schedule's ends are configs. Instances are those of ``cls``.
    """

    def __new__(made: type, *args: Any, **arguments: Any) -> Any:
        if made is not configured or args:  # a subclass of it, or a call that no registry makes
            return object.__new__(made)
        return loss_from_config({"NAME": name, **arguments})

    told_apart = {"__new__": __new__, "__doc__": cls.__doc__, "__module__": cls.__module__}
    configured = type(cls.__name__, (cls,), {**told_apart, "__qualname__": cls.__qualname__})
    return configured


def _readable(cfg: Any) -> Any:
    """``cfg`` with names that only MMEngine knows resolved; ``cfg`` itself is left as it is."""
    if isinstance(cfg, str):
        return _resolved(cfg, {"type": cfg})
    if isinstance(cfg, Mapping):
        name = cfg.get("type", cfg.get("NAME"))
        if name is None or ("type" in cfg and "NAME" in cfg):
            return {key: _readable(value) for key, value in cfg.items()}
        return _resolved(name, cfg)
    if isinstance(cfg, Sequence):
        return [_readable(entry) for entry in cfg]
    return cfg


def _resolved(name: Any, cfg: Mapping[str, Any]) -> Any:
    arguments = {key: value for key, value in cfg.items() if key not in ("type", "NAME")}
    cls = _class_of(name)
    if cls is None:
        return {"NAME": name, **arguments}
    if issubclass(cls, Schedule):
        ends = {key: _readable(value) if key in ENDS else value for key, value in arguments.items()}
        return {"NAME": "Schedule", **ends}
    if cls in LOSSES.module_dict.values():
        return {"NAME": name if _is_ours(name) else cls, **arguments}
    return MODELS.build({"type": cls, **arguments})


def _class_of(name: Any) -> type | None:
    """What ``name`` stands for, in our registry first; None if nothing."""
    if _is_ours(name):
        ours: type = LOSSES.module_dict[name.removeprefix("apml.")]
        return ours
    try:
        found = MODELS.get(name) if isinstance(name, str) else name
    except RuntimeError:  # how MODELS.get says that a path leads nowhere
        return None
    return found if isinstance(found, type) else None


def _is_ours(name: Any) -> bool:
    return isinstance(name, str) and name.removeprefix("apml.") in LOSSES.module_dict
