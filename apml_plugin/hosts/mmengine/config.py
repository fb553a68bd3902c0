"""``loss=`` of an MMEngine config: the grammar of ``build_loss``, in what such configs can write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.registry import MODELS
from torch import nn

from apml_plugin.errors import LossArgumentError
from apml_plugin.losses import Schedule
from apml_plugin.registry import LOSSES, build_loss

ENDS = {"first": "from", "last": "to"}


def loss_from_config(cfg: Any) -> nn.Module:
    """A loss module from all that ``build_loss`` reads, and from what MMEngine configs hold besides.

    - A schedule's ends may be called ``first`` and ``last``: Runner writes its config out as Python, where the
      key ``from`` is a syntax error.
    - Full paths (``apml_plugin.losses.apml.APML``), as the lazy config style writes them out.
    - Losses of others in MODELS, alone, for a stage, or as an end of a schedule.

    Raises:
        UnknownLossError, LossArgumentError, LossValueError: as :func:`apml_plugin.registry.build_loss`.
    """
    return build_loss(_readable(cfg))


class ConfiguredSchedule(Schedule):
    """``dict(type='Schedule', first='ChamferL2', last=dict(type='APML'), start=0, end=10)``.

    Args:
        start, end: epochs, ``start <= end``.
        ends: ``first`` and ``last``, or ``from`` and ``to``: each anything :func:`loss_from_config` reads.

    Raises:
        LossArgumentError: an end is missing, or another argument is given.
    """

    def __init__(self, start: float = 0, end: float = 10, **ends: Any) -> None:
        given = _with_ends(ends)
        if set(given) != {"from", "to"}:
            raise LossArgumentError(
                f"Schedule takes first, last, start and end, got {', '.join(ends) or 'neither first nor last'}; "
                "write dict(type='Schedule', first='ChamferL2', last='APML', start=0, end=10)"
            )
        super().__init__(loss_from_config(given["from"]), loss_from_config(given["to"]), start, end)


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
        ends = {
            key: _readable(value) if key in ENDS.values() else value for key, value in _with_ends(arguments).items()
        }
        return {"NAME": "Schedule", **ends}
    if cls in LOSSES.module_dict.values():
        return {"NAME": cls, **arguments}
    return MODELS.build({"type": cls, **arguments})


def _class_of(name: Any) -> type | None:
    """What ``name`` stands for, in our registry first; None if nothing."""
    if isinstance(name, str) and (ours := LOSSES.module_dict.get(name.removeprefix("apml."))):
        return ours
    try:
        found = MODELS.get(name) if isinstance(name, str) else name
    except RuntimeError:  # how MODELS.get says that a path leads nowhere
        return None
    return found if isinstance(found, type) else None


def _with_ends(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {ENDS.get(key, key): value for key, value in arguments.items()}
