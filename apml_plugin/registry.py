"""``LOSSES`` and ``build_loss``: a name, a mapping or a list of a YAML becomes a module.

The grammar (README, "What `loss:` may say"): a name; a mapping with ``NAME`` or ``type``; a list of those with
``weight`` (a weighted sum); a mapping of stage names; ``Schedule``.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from apml_plugin.arguments import did_you_mean, number, reject_unknown
from apml_plugin.errors import LossArgumentError, UnknownLossError
from apml_plugin.losses.base import DECLARED, PointLoss, arguments_of, describe
from apml_plugin.losses.combine import PerStage, Schedule, WeightedSum

# MMEngine's import draws from `random` (rich does). A host that has seeded would then train on other data.
_state = random.getstate()
try:
    from mmengine.registry import Registry
finally:
    random.setstate(_state)

__all__ = ["LOSSES", "PerStage", "Schedule", "arguments_of", "build_loss", "describe", "looks_like_loss", "set_epoch"]

LOSSES = Registry("loss", scope="apml")
"""Named losses. Add one with ``@LOSSES.register_module()`` and it is a name in every host's YAML."""

for _cls in DECLARED.values():
    LOSSES.register_module(module=_cls)

NAME_KEYS = ("NAME", "type")


def build_loss(cfg: Any, opts: Mapping[str, Any] | None = None) -> nn.Module:
    """A loss module from what a YAML or config says under ``loss:``.

    Args:
        cfg: a name; a mapping with ``NAME`` or ``type`` and arguments; a list of those, each with an optional
            ``weight`` (default 1); a mapping of stage names to any of these; or an nn.Module, returned as is.
            EasyDict, ConfigDict and dict are alike. It is not changed.
        opts: arguments for a ``cfg`` that is a name alone (the sibling ``loss_opts:``).

    Raises:
        UnknownLossError: no loss of that name; the nearest names are offered.
        LossArgumentError: an argument the loss does not take, or one of the wrong type or form.
        LossValueError: an argument out of range.

    >>> build_loss({"NAME": "APML", "reduction": "mean"})  # doctest: +SKIP
    """
    if opts is not None and not isinstance(cfg, str):
        raise LossArgumentError(
            f"loss_opts={dict(opts)!r} goes with a loss given by name alone; put the arguments into loss: itself"
        )
    if isinstance(cfg, nn.Module):
        return cfg
    if isinstance(cfg, str):
        if opts is not None and not isinstance(opts, Mapping):
            raise LossArgumentError(f"loss_opts={opts!r} must be a mapping of arguments, got {type(opts).__name__}")
        return _build_named({"NAME": cfg, **(opts or {})})
    if isinstance(cfg, Mapping):
        return _build_stages(cfg) if _name_of(cfg) is None else _build_named(cfg)
    if isinstance(cfg, Sequence):
        return _build_sum(cfg)
    raise LossArgumentError(
        f"loss: {cfg!r} must be a name, a mapping with NAME, a list of them or a mapping of stages, "
        f"got {type(cfg).__name__}"
    )


def looks_like_loss(value: Any) -> bool:
    """Whether a host's ``loss:`` names a registered loss. Some hosts keep other things there, such as weights."""
    if isinstance(value, str):
        return value in LOSSES.module_dict
    if isinstance(value, Mapping):
        if _name_of(value) is not None:
            return looks_like_loss(_name_of(value))
        return bool(value) and all(looks_like_loss(entry) for entry in value.values())
    if isinstance(value, Sequence):
        return bool(value) and all(looks_like_loss(entry) for entry in value)
    return False


def set_epoch(loss: nn.Module, epoch: int) -> None:
    """Passes the epoch to every part of a loss that depends on it (schedules)."""
    for module in loss.modules():
        if isinstance(module, PointLoss):
            module.set_epoch(epoch)


def _name_of(cfg: Mapping[str, Any]) -> Any:
    named = [cfg[key] for key in NAME_KEYS if key in cfg]
    if len(named) > 1:
        raise LossArgumentError(f"loss: {dict(cfg)!r} has both NAME and type; they mean the same, keep one")
    return named[0] if named else None


def _class_named(name: Any) -> type[nn.Module]:
    if isinstance(name, type):
        return name
    if not isinstance(name, str):
        raise LossArgumentError(f"the NAME of a loss must be a string, got {name!r}")
    known: dict[str, type[nn.Module]] = LOSSES.module_dict
    plain = name.removeprefix("apml.")
    if plain in known:
        return known[plain]
    offer = did_you_mean(plain, known, most=3, cutoff=0.4)
    raise UnknownLossError(f"no loss is called {name!r}{offer}{'' if offer else ';'} `apml losses` lists all names")


def _build_named(cfg: Mapping[str, Any]) -> nn.Module:
    name = _name_of(cfg)
    cls = _class_named(name)
    arguments = {key: value for key, value in cfg.items() if key not in NAME_KEYS}
    weight = arguments.pop("weight", None)
    takes, aliases = arguments_of(cls), getattr(cls, "aliases", {})
    reject_unknown(name, arguments, [*takes, *aliases, "weight"])
    for alias, argument in aliases.items():
        if alias in arguments and argument in arguments:
            raise LossArgumentError(f"{name}: {alias} and {argument} mean the same, keep one")
        if alias in arguments:
            arguments[argument] = arguments.pop(alias)
    called = {argument: alias for alias, argument in aliases.items()}
    required = [key for key, p in takes.items() if p.default is p.empty]
    if missing := [called.get(key, key) for key in required if key not in arguments]:
        form = ", ".join(f"{called.get(key, key)}: ..." for key in required)
        alike = f" (or {', '.join(called)})" if called else ""
        raise LossArgumentError(
            f"{name}: missing {' and '.join(map(repr, missing))}; write {{NAME: {name}, {form}}}{alike}"
        )
    for key in getattr(cls, "nested", ()):
        if arguments.get(key) is not None:
            arguments[key] = build_loss(arguments[key])
    loss = cls(**arguments)
    return loss if weight is None else WeightedSum([loss], [number("weight", weight)])


def _build_sum(cfg: Sequence[Any]) -> nn.Module:
    losses, weights = [], []
    for entry in cfg:
        weight: Any = 1.0
        if isinstance(entry, Mapping) and _name_of(entry) is not None:
            weight = entry.get("weight", 1.0)
            entry = {key: value for key, value in entry.items() if key != "weight"}
        elif not isinstance(entry, str):
            raise LossArgumentError(
                f"loss: the list entry {entry!r} must be a name or a mapping with NAME (and weight)"
            )
        losses.append(build_loss(entry))
        weights.append(number("weight", weight))
    if not losses:
        raise LossArgumentError("loss: the list is empty; name at least one loss, for example [APML]")
    return WeightedSum(losses, weights)


def _build_stages(cfg: Mapping[str, Any]) -> nn.Module:
    for name, entry in cfg.items():
        if not isinstance(name, str) or not isinstance(entry, (str, Mapping, Sequence, nn.Module)):
            raise LossArgumentError(
                f"loss: {dict(cfg)!r} has neither NAME nor type, and {name!r}: {entry!r} is no loss for a stage; "
                "write {NAME: APML, ...} or {coarse: ChamferL1, fine: APML}"
            )
    if not cfg:
        raise LossArgumentError("loss: {} is empty; write a name such as APML")
    return PerStage({name: build_loss(entry) for name, entry in cfg.items()})
