"""``LOSSES`` and ``build_loss``: a name, a mapping or a list of a YAML becomes a module.

The grammar (README, "What `loss:` may say"): a name; a mapping with ``NAME`` or ``type``; a list of those
with ``weight`` (a weighted sum); a mapping of stage names; ``Schedule``.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from apml_plugin import losses as _losses
from apml_plugin._registry_base import Registry
from apml_plugin.errors import LossArgumentError, UnknownLossError
from apml_plugin.losses import PerStage, PointLoss, Schedule, WeightedSum
from apml_plugin.losses.combine import describe
from apml_plugin.matching.settings import number

__all__ = ["LOSSES", "PerStage", "Schedule", "build_loss", "describe", "looks_like_loss", "set_epoch"]

LOSSES = Registry("loss", scope="apml")
"""Named losses. Add your own with ``@LOSSES.register_module()`` and it is a name in every host's YAML."""

for _cls in (
    _losses.APML,
    _losses.APMLSparse,
    _losses.AdaptiveProbabilisticMatchingLoss,
    _losses.ChamferL1,
    _losses.ChamferL2,
    _losses.OneSidedChamfer,
    _losses.DCD,
    _losses.HyperCD,
    _losses.InfoCD,
    _losses.Hausdorff,
    _losses.EMD,
    _losses.ApproximateEMD,
    _losses.DPCC,
    _losses.DPCCDistortion,
    _losses.DPCCDensity,
    _losses.DPCCPointsNumber,
    _losses.DPCCLatent,
    _losses.DPCCNormal,
    _losses.Rate,
    _losses.Sinkhorn,
    _losses.Energy,
    _losses.Gaussian,
    _losses.Laplacian,
    _losses.HausdorffDivergence,
    _losses.ImagesSinkhorn,
    _losses.VolumesSinkhorn,
    _losses.HGMM,
    _losses.GMM,
    _losses.EigenPenalty,
    _losses.LatentKL,
    _losses.PoseLoss,
    _losses.Schedule,
):
    LOSSES.register_module(module=_cls)

NAME_KEYS = ("NAME", "type")


def build_loss(cfg: Any, opts: Mapping[str, Any] | None = None) -> nn.Module:
    """A loss module from what a YAML or config says under ``loss:``.

    Args:
        cfg: a name; a mapping with ``NAME`` or ``type`` and arguments; a list of those, each with an optional
            ``weight`` (default 1); a mapping of stage names to any of these; or an nn.Module, returned as is.
            EasyDict, ConfigDict and dict are alike; nothing is changed in it.
        opts: arguments for a ``cfg`` that is a name alone (the sibling ``loss_opts:``).

    Raises:
        UnknownLossError: no loss of that name; the nearest names are offered.
        LossArgumentError: an argument the loss does not take, or one of the wrong type or form.
        LossValueError: an argument out of range.
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
        if _name_of(cfg) is not None:
            return _build_named(cfg)
        return _build_stages(cfg)
    if isinstance(cfg, Sequence):
        return _build_sum(cfg)
    raise LossArgumentError(
        f"loss: {cfg!r} must be a name, a mapping with NAME, a list of them or a mapping of stages, "
        f"got {type(cfg).__name__}"
    )


def looks_like_loss(value: Any) -> bool:
    """Whether a host's ``loss:`` is ours to read: some hosts keep other things there, such as weights."""
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
    """Tells the epoch to every part of a loss that wants to know (schedules)."""
    for module in loss.modules():
        if isinstance(module, PointLoss):
            module.set_epoch(epoch)


def arguments_of(cls: type) -> dict[str, inspect.Parameter]:
    """The arguments a registered loss takes, those it passes on to its parent class included."""
    own = dict(inspect.signature(cls).parameters)
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in own.values()):
        own = {name: p for name, p in own.items() if p.kind is not inspect.Parameter.VAR_KEYWORD}
        for base in cls.__mro__[1:]:
            if base in LOSSES.module_dict.values():
                return {**own, **{n: p for n, p in arguments_of(base).items() if n not in own}}
    return own


def _name_of(cfg: Mapping[str, Any]) -> Any:
    named = [cfg[key] for key in NAME_KEYS if key in cfg]
    if len(named) > 1:
        raise LossArgumentError(f"loss: {dict(cfg)!r} has both NAME and type; they mean the same, keep one")
    return named[0] if named else None


def _build_named(cfg: Mapping[str, Any]) -> nn.Module:
    name = _name_of(cfg)
    arguments = {key: value for key, value in cfg.items() if key not in NAME_KEYS}
    weight = arguments.pop("weight", None)
    cls = _class_named(name)
    loss = _build_schedule(arguments) if cls is Schedule else _construct(name, cls, arguments)
    return loss if weight is None else WeightedSum([loss], [number("weight", weight)])


def _class_named(name: Any) -> type:
    if isinstance(name, type):
        return name
    if not isinstance(name, str):
        raise LossArgumentError(f"the NAME of a loss must be a string, got {name!r}")
    known = LOSSES.module_dict
    plain = name.removeprefix("apml.")
    if plain in known:
        return known[plain]
    lower = {key.lower(): key for key in known}
    close = difflib.get_close_matches(plain.lower(), lower, n=3, cutoff=0.4)
    offer = f": did you mean {' or '.join(repr(lower[key]) for key in close)}?" if close else ""
    raise UnknownLossError(f"no loss is called {name!r}{offer} (known: {', '.join(sorted(known))})")


def _construct(name: Any, cls: type, arguments: dict[str, Any]) -> nn.Module:
    refuse_unknown(name, arguments, [*arguments_of(cls), "weight"])
    for key in getattr(cls, "nested", ()):
        if arguments.get(key) is not None:
            arguments[key] = build_loss(arguments[key])
    loss: nn.Module = cls(**arguments)
    return loss


def refuse_unknown(name: Any, arguments: Iterable[Any], takes: Sequence[str]) -> None:
    """Raises LossArgumentError for an argument that `name` does not take, and offers the nearest one."""
    for key in arguments:
        if key not in takes:
            close = difflib.get_close_matches(str(key), takes, n=1, cutoff=0.5)
            offer = f": did you mean {close[0]!r}?" if close else ""
            raise LossArgumentError(f"{name} takes no argument {key!r}{offer} (it takes {', '.join(takes)})")


def _build_schedule(arguments: dict[str, Any]) -> nn.Module:
    # `first` and `last` mean the same: configs that are written out as Python cannot hold a keyword `from`.
    plain = {{"first": "from", "last": "to"}.get(key, key): value for key, value in arguments.items()}
    unknown = [key for key in plain if key not in ("from", "to", "start", "end")]
    missing = [key for key in ("from", "to") if key not in plain]
    if unknown or missing or len(plain) < len(arguments):
        wrong = f"unknown {', '.join(map(repr, unknown))}" if unknown else f"missing {', '.join(map(repr, missing))}"
        if len(plain) < len(arguments):
            wrong = "from and first (or to and last) mean the same, keep one"
        raise LossArgumentError(
            f"Schedule: {wrong}; write {{NAME: Schedule, from: ChamferL1, to: {{NAME: APML, reduction: mean}}, "
            "start: 0, end: 10} (first and last mean the same)"
        )
    times = {key: plain[key] for key in ("start", "end") if key in plain}
    return Schedule(build_loss(plain["from"]), build_loss(plain["to"]), **times)


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
