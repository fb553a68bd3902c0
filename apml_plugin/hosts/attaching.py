"""Putting our loss in the place of a host's, in one model instance.

The host's attribute becomes a `HostLoss`; its `get_loss` is wrapped once, in the class, so that a call knows which
stage it is for and schedules learn the epoch. A model without an attached loss passes straight through.
"""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from collections.abc import Mapping
from typing import Any

from torch import nn

from ..errors import HostError, LossArgumentError, LossValueError
from ..losses import PerStage, Schedule
from ..registry import build_loss, describe, looks_like_loss
from .announce import announce
from .chosen import VARIABLE, chosen_loss
from .hostloss import HostLoss
from .stages import LossSite, sites_of

_WRAPPED = "__apml_get_loss__"


def attach(model: nn.Module, config: Any) -> nn.Module:
    """Give `model` the loss that its `config` (what its constructor got) names under `loss:`.

    Without `loss:`, or where `loss:` is the host's own (numbers, or a string the host reads itself), the model comes
    back untouched. A second call changes nothing. Prints one line naming the loss, its parameters and backend.

    Raises:
        UnknownLossError, LossArgumentError, LossValueError: from building the loss; also LossValueError for a
            stage this host does not have and for a Schedule in a host that does not pass the epoch.
        HostError: a model in which no loss can be replaced.
    """
    value, opts, where = chosen_loss(_lookup(config, "loss"), _lookup(config, "loss_opts"))
    if not isinstance(model, nn.Module) or attached(model):
        return model
    cls = type(model)
    if where == VARIABLE and not any(hasattr(cls, name) for name in ("build_loss_func", "get_loss")):
        return model  # asked for by nobody in particular: a model without any loss of its own is none of ours
    own_key = _reads_loss_itself(cls)
    if where != VARIABLE and (value is None or (not looks_like_loss(value) and (own_key or _is_numbers(value)))):
        if value is None and opts is not None and not own_key:
            raise LossArgumentError(f"loss_opts={opts!r} is given without loss:; write loss: APML beside it")
        return model
    loss, sites = build_loss(value, opts), model_sites(cls)
    if not sites and own_key:
        return model
    if not sites:
        raise HostError(
            f"{cls.__name__} has no loss to replace: looked in its build_loss_func for attributes that hold a "
            "ChamferDistance. Remove loss: from the YAML to train with the host's own loss"
        )
    _check_schedule(cls, loss)
    _check_stages(cls, sites, loss)
    check_two_clouds(cls.__name__, loss)
    replaced = [_host_loss(cls, getattr(model, site.attribute, None), site, loss) for site in sites]
    for site, host_loss in zip(sites, replaced, strict=True):
        setattr(model, site.attribute, host_loss)
    ensure_wrapped(cls)
    announce(_line(cls, sites, replaced, where))
    return model


def attached(model: nn.Module) -> tuple[HostLoss, ...]:
    """The losses this plugin put into a model."""
    return tuple(child for child in model.children() if isinstance(child, HostLoss))


def model_sites(cls: type) -> tuple[LossSite, ...]:
    """Where a model class keeps its training loss, read from its methods, inherited ones included."""
    names = [base.__name__ for base in cls.__mro__]
    return sites_of(names, _method(cls, "build_loss_func"), _method(cls, "get_loss"))


def _method(cls: type, name: str) -> ast.FunctionDef | None:
    """The syntax tree of a method; one that calls super().<name> makes its calls in the class it inherits from."""
    for owner in cls.__mro__:
        function = vars(owner).get(name)
        if function is None:
            continue
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))
        except (OSError, TypeError, SyntaxError) as error:
            raise HostError(f"cannot read the source of {owner.__name__}.{name} to find its loss: {error}") from None
        node = tree.body[0]
        if isinstance(node, ast.FunctionDef) and f"super().{name}(" not in ast.unparse(node):
            return node
    return None


def ensure_wrapped(cls: type) -> None:
    """Wrap `get_loss` in the class that defines it, once."""
    for owner in cls.__mro__:
        original = vars(owner).get("get_loss")
        if original is None:
            continue
        if not hasattr(original, _WRAPPED):
            owner.get_loss = _wrapper(original)  # type: ignore[attr-defined]
        return


def _wrapper(original: Any) -> Any:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def get_loss(self: Any, *args: Any, **kwargs: Any) -> Any:
        losses = attached(self)
        # A subclass that calls super().get_loss() opens the outer call only.
        if not losses or losses[0].running:
            return original(self, *args, **kwargs)
        epoch = signature.bind(self, *args, **kwargs).arguments.get("epoch")
        for loss in losses:
            loss.begin(epoch)
        try:
            return original(self, *args, **kwargs)
        finally:
            for loss in losses:
                loss.end()

    setattr(get_loss, _WRAPPED, original)
    return get_loss


def _host_loss(cls: type, own: Any, site: LossSite, loss: nn.Module) -> HostLoss:
    if not isinstance(own, nn.Module):
        raise HostError(f"{cls.__name__}.{site.attribute} is not a loss module but {own!r}; nothing was replaced")
    if own.state_dict() or loss.state_dict():
        raise HostError(
            f"{cls.__name__}.{site.attribute} or the loss to put there has weights or buffers of its own; replacing it "
            "would break strict loading of checkpoints, so nothing was replaced"
        )
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


def _check_stages(cls: type, sites: tuple[LossSite, ...], loss: nn.Module) -> None:
    known = list(dict.fromkeys(stage for site in sites for stage in site.stages))
    unknown = [name for name in loss.names if name not in known] if isinstance(loss, PerStage) else []
    if unknown:
        raise LossValueError(
            f"loss: {cls.__name__} has no stage {' or '.join(map(repr, unknown))}; its stages are {', '.join(known)}"
        )


def _check_schedule(cls: type, loss: nn.Module) -> None:
    get_loss = getattr(cls, "get_loss", None)
    told = get_loss is not None and "epoch" in inspect.signature(get_loss).parameters
    if not told and any(isinstance(part, Schedule) for part in loss.modules()):
        raise LossValueError(
            f"loss: a Schedule needs the epoch, which {cls.__name__}.get_loss does not take; use a fixed loss"
        )


def _is_numbers(value: Any) -> bool:
    """A mapping of weights: another host's `loss:`."""
    return isinstance(value, Mapping) and bool(value) and all(isinstance(v, int | float) for v in value.values())


def _reads_loss_itself(cls: type) -> bool:
    """True if the constructor reads `config.loss` itself, or takes it as an argument: then the key is not only ours."""
    code = getattr(inspect.unwrap(cls.__init__), "__code__", None)  # type: ignore[misc]
    return code is not None and "loss" in (*code.co_names, *code.co_consts, *code.co_varnames)


def _line(cls: type, sites: tuple[LossSite, ...], losses: list[HostLoss], where: str) -> str:
    parts = []
    for site, loss in zip(sites, losses, strict=True):
        own = type(loss.own).__name__
        if len({id(part) for part in loss.chosen.values()}) == 1:
            said = describe(next(iter(loss.chosen.values())))
            parts.append(f"{said} in place of {own} (stages {', '.join(loss.chosen)})")
        else:
            said = ", ".join(f"{stage}: {describe(part)}" for stage, part in loss.chosen.items())
            parts.append(f"{{{said}}} in place of {own}")
        kept = [stage for stage in site.stages if stage not in loss.chosen]
        if kept:
            parts[-1] += f", {own} kept for {', '.join(kept)}"
    source = f" (from {where})" if where == VARIABLE else ""
    return f"[apml] {cls.__name__} trains with {'; '.join(parts)}{source}; validation keeps the host's own metrics"


def _lookup(config: Any, key: str) -> Any:
    return config.get(key) if isinstance(config, Mapping) else getattr(config, key, None)
