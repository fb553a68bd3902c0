"""Replaces a host's loss by the chosen one in a model instance.

The attribute that holds the host's loss becomes a `HostLoss`. The class's `get_loss` is wrapped once, so that a call
knows its stage and schedules get the epoch. Models without an attached loss are not affected.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from ...announce import announce
from ...chosen import VARIABLE, chosen_loss
from ...errors import HostError, LossArgumentError, LossValueError
from ...losses import PerStage, Schedule
from ...registry import build_loss, describe, looks_like_loss
from .. import calls, gates, guard
from .hostloss import HostLoss, Slot, attached, ensure_wrapped, slots
from .stages import LossSite, check_stages, sites_of


def attach(model: nn.Module, config: Any) -> nn.Module:
    """Gives `model` the loss that its `config` (what its constructor got) names under `loss:`; returns the model.

    Without `loss:`, or if `loss:` is the host's own (numbers, or a string that the host reads itself), the model is
    unchanged. Idempotent. Prints one line with the loss, its parameters and its backend.

    Every Chamfer object that the model holds is gated, whichever method made it. If it holds none, the loss is used by
    the gates in the host's functions, and the guard stops a run in which none of them is called.

    Raises:
        UnknownLossError, LossArgumentError, LossValueError: the loss cannot be built. LossValueError also for a stage
            that the model does not have, and for a Schedule if its `get_loss` takes no epoch.
        HostError: replacing the loss would change the model's state dict.
    """
    value, opts, where = chosen_loss(_lookup(config, "loss"), _lookup(config, "loss_opts"))
    if not isinstance(model, nn.Module) or attached(model):
        return model
    cls = type(model)
    own_key = _reads_loss_itself(cls)
    if where != VARIABLE and (value is None or (not looks_like_loss(value) and (own_key or _is_numbers(value)))):
        if value is None and opts is not None and not own_key:
            raise LossArgumentError(f"loss_opts={opts!r} is given without loss:; write loss: APML beside it")
        return model
    loss = build_loss(value, opts)
    guard.arm(guard.asked_for(value, where))
    sites = {site.attribute: site for site in model_sites(cls)}
    found = [
        (slot, sites.get(slot.name)) for slot in slots(model) if slot.name in sites or looks_like_chamfer(slot.own)
    ]
    inherited = [gates.training_loss(base) for base in _inherited(model)]
    if (inherited or not found) and where != VARIABLE and not own_key:
        calls.choose(value, opts)
    if not found:
        return model
    _check_schedule(cls, loss)
    _check_stages(cls, [site for _, site in found], loss)
    check_two_clouds(cls.__name__, loss)
    replaced = [_host_loss(cls, slot, site, loss) for slot, site in found]
    for (slot, _), host_loss in zip(found, replaced, strict=True):
        slot.put(host_loss)
    ensure_wrapped(cls)
    announce(_line(cls, replaced, where))
    return model


_CHAMFER = re.compile(r"chamfer|(?<![a-z])cd(?![a-z])|(?<![A-Za-z])CD(?=L[12]|Loss)", re.IGNORECASE)
_ONE_WAY = ("_PM", "_split")


def looks_like_chamfer(value: Any) -> bool:
    """Whether a callable has the name of a Chamfer distance; what it returns is found when it is called."""
    if isinstance(value, type | HostLoss) or not callable(value):
        return False
    inner = getattr(value, "func", getattr(value, "__func__", value))
    if isinstance(inner, nn.Module):
        # Of a class that adds to a Chamfer that it inherits, such as a weight, only that Chamfer is replaced.
        name = next(base.__name__ for base in type(inner).__mro__ if "forward" in vars(base))
    else:
        name = getattr(inner, "__name__", type(inner).__name__)
    return _CHAMFER.search(name) is not None and not name.endswith(_ONE_WAY)


def _inherited(model: nn.Module) -> Iterator[type]:
    """The Chamfer classes whose ``forward`` is overridden by classes of modules in the model."""
    for module in model.modules():
        first, *others = [base for base in type(module).__mro__ if "forward" in vars(base)]
        if not _CHAMFER.search(first.__name__):
            yield from [o for o in others if _CHAMFER.search(o.__name__) and not o.__name__.endswith(_ONE_WAY)][:1]


def model_sites(cls: type) -> tuple[LossSite, ...]:
    """The attributes in which a model class holds its training loss, read from its and its bases' methods."""
    names = [base.__name__ for base in cls.__mro__]
    return sites_of(names, _method(cls, "build_loss_func"), _method(cls, "get_loss"))


def _method(cls: type, name: str) -> ast.FunctionDef | None:
    """The syntax tree of a method; of the base's, if a class only calls super().<name>."""
    for owner in cls.__mro__:
        function = vars(owner).get(name)
        if function is None:
            continue
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))
        except (OSError, TypeError, SyntaxError):
            return None
        node = tree.body[0]
        if isinstance(node, ast.FunctionDef) and f"super().{name}(" not in ast.unparse(node):
            return node
    return None


def _host_loss(cls: type, slot: Slot, site: LossSite | None, loss: nn.Module) -> HostLoss:
    own = slot.own
    if not callable(own):
        raise HostError(f"{cls.__name__}.{slot.name} is {own!r}, not a loss; nothing was replaced")
    if loss.state_dict() or (isinstance(own, nn.Module) and own.state_dict()):
        raise HostError(
            f"{cls.__name__}.{slot.name} or the loss to put there has weights or buffers of its own; replacing it "
            "would break strict loading of checkpoints, so nothing was replaced"
        )
    if site is None:
        return HostLoss(own, None, {"": loss}, cls)
    if isinstance(loss, PerStage):
        chosen = {name: part for name in site.stages if (part := loss.stage(name)) is not None}
    else:
        chosen = {stage: loss for stage in site.stages if stage not in site.kept}
    return HostLoss(own, site.stages, chosen, cls)


def check_two_clouds(model: str, loss: nn.Module) -> None:
    """Raises LossValueError if a part of the loss needs more than the predicted and the true cloud of a stage."""
    for part in loss.modules():
        if needs := getattr(part, "needs", ""):
            raise LossValueError(f"loss: {model} gives a predicted and a true cloud, but {needs}")


def _check_stages(cls: type, sites: list[LossSite | None], loss: nn.Module) -> None:
    if not isinstance(loss, PerStage) or None in sites:
        return  # only a run shows the number of stages
    check_stages(
        cls.__name__, loss.names, list(dict.fromkeys(stage for site in sites if site for stage in site.stages))
    )


def _check_schedule(cls: type, loss: nn.Module) -> None:
    get_loss = getattr(cls, "get_loss", None)
    has_epoch = get_loss is not None and "epoch" in inspect.signature(get_loss).parameters
    if not has_epoch and any(isinstance(part, Schedule) for part in loss.modules()):
        raise LossValueError(
            f"loss: a Schedule needs the epoch, which {cls.__name__}.get_loss does not take; use a fixed loss"
        )


def _is_numbers(value: Any) -> bool:
    """Whether a `loss:` is the host's own: a mapping of weights."""
    return isinstance(value, Mapping) and bool(value) and all(isinstance(v, int | float) for v in value.values())


def _reads_loss_itself(cls: type) -> bool:
    """Whether the constructor reads `config.loss` itself, or takes it as an argument: then the key has two meanings."""
    code = getattr(inspect.unwrap(cls.__init__), "__code__", None)  # type: ignore[misc]
    return code is not None and "loss" in (*code.co_names, *code.co_consts, *code.co_varnames)


def _line(cls: type, losses: list[HostLoss], where: str) -> str:
    parts = []
    for loss in losses:
        own = gates.name_of(loss.own)
        stages = ", ".join(loss.chosen) if loss.stages is None else f"stages {', '.join(loss.chosen)}"
        if len({id(part) for part in loss.chosen.values()}) == 1:
            parts.append(f"{describe(next(iter(loss.chosen.values())))} in place of {own} ({stages})")
        else:
            each = ", ".join(f"{stage}: {describe(part)}" for stage, part in loss.chosen.items())
            parts.append(f"{{{each}}} in place of {own}")
        kept = [stage for stage in loss.stages or () if stage not in loss.chosen]
        if kept:
            parts[-1] += f", {own} kept for {', '.join(kept)}"
    losses_text = "; ".join(dict.fromkeys(parts))
    source = f" (from {where})" if where == VARIABLE else ""
    return f"[apml] {cls.__name__} trains with {losses_text}{source}; validation keeps the host's own metrics"


def _lookup(config: Any, key: str) -> Any:
    return config.get(key) if isinstance(config, Mapping) else getattr(config, key, None)
