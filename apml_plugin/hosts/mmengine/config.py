"""``loss=`` of an MMEngine config: what ``build_loss`` reads, plus names that only MMEngine knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.registry import MODELS
from torch import nn

from apml_plugin.announce import announce
from apml_plugin.chosen import VARIABLE, chosen_loss
from apml_plugin.hosts import guard
from apml_plugin.hosts.calls import building
from apml_plugin.losses import Schedule
from apml_plugin.registry import LOSSES, build_loss, describe

ENDS = ("first", "last", "from", "to")


def loss_from_config(cfg: Any) -> nn.Module:
    """A loss module from all that ``build_loss`` reads, and from what MMEngine configs hold besides.

    - Full paths (``apml_plugin.losses.apml.APML``), as the lazy config style writes them.
    - Losses of other projects in MODELS, alone, for a stage, or as an end of a schedule.

    A Runner writes its config as Python, where the key ``from`` is a syntax error. So the ends of a schedule can also
    be called ``first`` and ``last``.

    Raises:
        UnknownLossError, LossArgumentError, LossValueError: as :func:`apml_plugin.registry.build_loss`.
    """
    return build_loss(_readable(cfg))


def loss_of_run(cfg: Any) -> nn.Module:
    """The loss that ``APML_LOSS`` (``apml run --loss``) names, with a line that says so; else that of ``cfg``."""
    value, _, where = chosen_loss(cfg)
    if where != VARIABLE:
        return loss_from_config(cfg)
    with building():
        loss = loss_from_config(value)
    guard.arm(guard.asked_for(value, where))
    announce(f"[apml] {describe(loss)} (from {VARIABLE}) replaces loss={cfg!r} of the config")
    return loss


def loss_class(name: str, cls: type) -> type:
    """A class for registries that builds the loss ``name`` as :func:`loss_from_config` does.

    A registry calls its entries with the config's arguments, so a misspelt argument would end in Python's TypeError.
    This class gives the errors of ``loss=`` instead, with the nearest argument; it also accepts ``weight``, and configs
    as the ends of a schedule. Instances are those of ``cls``.
    """

    def __new__(made: type, *args: Any, **arguments: Any) -> Any:
        if made is not configured or args:  # a subclass, or a call that no registry makes
            return object.__new__(made)
        return loss_from_config({"NAME": name, **arguments})

    identity = {"__doc__": cls.__doc__, "__module__": cls.__module__, "__qualname__": cls.__qualname__}
    configured = type(cls.__name__, (cls,), {"__new__": __new__, **identity})
    return configured


def _readable(cfg: Any) -> Any:
    """A copy of ``cfg`` in which names that only MMEngine knows are resolved."""
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
    """The class that ``name`` means, in our registry first; None if there is none."""
    if _is_ours(name):
        ours: type = LOSSES.module_dict[name.removeprefix("apml.")]
        return ours
    try:
        cls = MODELS.get(name) if isinstance(name, str) else name
    except RuntimeError:  # MODELS.get raises it for a path that does not exist
        return None
    return cls if isinstance(cls, type) else None


def _is_ours(name: Any) -> bool:
    return isinstance(name, str) and name.removeprefix("apml.") in LOSSES.module_dict
