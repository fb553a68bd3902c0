"""What a patched host without a model registry calls: its Chamfer in training becomes the chosen loss.

A call counts as training if gradients are recorded and one of its two clouds wants one; every other call, such as
the one that selects the best checkpoint, is the host's own. With no loss chosen, so is every call, bit for bit.

Nothing here imports torch: patched files load this before the host has decided on its devices.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from . import training_calls as calls
from .chosen import VARIABLE, chosen_loss
from .interrupted import interrupted, interrupted_caller

F = TypeVar("F", bound=Callable[..., Any])
_DONE = "__apml_trains__"
_GT_NAMES = ("gt", "target", "label", "truth", "complete")


def trains_with_loss(function: F | None = None, *, per_sample: bool = False) -> Any:
    """Decorator for a host's two-sided Chamfer function ``f(pred (B, N, 3), gt (B, M, 3), ...)``, or such a method.

    It gives one number, or with `per_sample` a tuple or list whose first entries are vectors (B,): those become ours.
    The prediction is the cloud that wants a gradient; if both do, the first, unless its name says it is the truth.
    """
    if function is None:
        return functools.partial(trains_with_loss, per_sample=per_sample)
    if hasattr(function, _DONE) or interrupted(function):
        return function
    names = list(inspect.signature(function).parameters)
    skip = 1 if names[:1] in (["self"], ["cls"]) else 0
    gt_first = bool(names[skip:]) and _is_gt(names[skip])
    label = f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        owner = args[0] if skip and args else None
        clouds = calls.clouds_of(args[skip:], kwargs, names[skip:])
        loss = calls.loss_for(clouds, owner)
        if loss is None:
            return function(*args, **kwargs)
        pred, gt = calls.ordered(clouds[0], clouds[1], gt_first)
        if not per_sample:
            return calls.value_of(loss, pred, gt, label)
        own = function(*args, **kwargs)
        return calls.replaced(own, calls.values_of(loss, pred, gt, label))

    setattr(wrapper, _DONE, True)
    calls.placed()
    return wrapper


def training_loss(own: Any) -> Any:
    """Stands where a training function keeps its loss: calls that train go to the chosen loss, all else to `own`."""
    if hasattr(own, _DONE) or interrupted_caller() or (chosen_loss()[0] is None and not calls.named):
        return own
    calls.placed()
    torch = sys.modules.get("torch")
    wrapped = _in_module(own) if torch is not None and isinstance(own, torch.nn.Module) else _TrainingLoss(own)
    setattr(wrapped, _DONE, True)
    return wrapped


class _TrainingLoss:
    """``loss(pred (B, N, 3), gt (B, M, 3))`` -> 0-dim tensor; attributes are those of the host's own loss."""

    def __init__(self, own: Any) -> None:
        self.own = own

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return training_value(lambda: self.own(*args, **kwargs), *args[:2], label=_name_of(self.own))

    def __getattr__(self, name: str) -> Any:
        if name == "own":  # not there yet while being unpickled
            raise AttributeError(name)
        return getattr(self.own, name)


def _in_module(own: Any) -> Any:
    """The same as a module: a model's attribute that held one takes nothing else. It adds nothing to a state."""
    import torch

    class TrainingLoss(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own = own

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return training_value(lambda: self.own(*args, **kwargs), *args[:2], label=_name_of(self.own))

    return TrainingLoss()


def training_value(own: Any, *clouds: Any, label: str = "") -> Any:
    """The chosen loss of ``(pred, gt)`` in training, else the host's value `own` (or what calling it gives).

    For a line added by hand behind a host's own: ``loss = training_value(loss, pred, gt)``.
    """
    loss = calls.loss_for(clouds, None)
    if loss is None:
        return own() if callable(own) else own
    pred, gt = calls.ordered(clouds[0], clouds[1], False)
    return calls.value_of(loss, pred, gt, label or "the host's loss")


def lets_loss_through(parameter: str, known: str) -> Callable[[F], F]:
    """Decorator for a function that tells its loss by a string and knows not ours.

    A value that names one of our losses (or any value, with ``APML_LOSS`` set) reaches the host's code as `known`;
    the object then trains with it.
    """

    def decorate(function: F) -> F:
        if hasattr(function, _DONE) or interrupted(function):
            return function
        signature = inspect.signature(function)

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            if parameter not in bound.arguments:
                return function(*args, **kwargs)
            value = bound.arguments[parameter]
            passed = host_loss_name(value, known, bound.arguments.get("self"))
            if passed is value:
                return function(*args, **kwargs)
            bound.arguments[parameter] = passed
            return function(*bound.args, **bound.kwargs)

        setattr(wrapper, _DONE, True)
        return wrapper  # type: ignore[return-value]

    return decorate


def host_loss_name(value: Any, known: str, owner: Any = None, opts: Any = None) -> Any:
    """`value` if it is the host's own; `known` if it names one of our losses, which is then chosen.

    owner: the object whose training it is (without one, the whole run's). opts: where ``loss_opts`` may be.
    """
    if interrupted_caller():
        return value
    wanted, given, _where = chosen_loss(value, _opts(opts))
    if _where == VARIABLE:
        return known
    if value is None or not _is_ours(wanted):
        return value
    entry = (wanted, given if isinstance(wanted, str) else None)
    if owner is None or opts is not None:
        if entry not in calls.named:
            calls.named[:] = [entry]
    else:
        owner.__dict__[calls.OWN] = entry
    return known


def keeps_host_loss(function: F) -> F:
    """Decorator for a host's validation that records gradients all the same: within it, its own loss counts."""
    if hasattr(function, _DONE) or interrupted(function):
        return function

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with calls.no_training():
            return function(*args, **kwargs)

    setattr(wrapper, _DONE, True)
    return wrapper  # type: ignore[return-value]


def _is_gt(name: str) -> bool:
    return name.lower().startswith(_GT_NAMES)


def _is_ours(value: Any) -> bool:
    from ..registry import looks_like_loss

    return looks_like_loss(value)


def _opts(owner: Any) -> Any:
    """The ``loss_opts`` beside a host's ``loss``, if its config has them."""
    return owner.get("loss_opts") if isinstance(owner, Mapping) else getattr(owner, "loss_opts", None)


def _name_of(own: Any) -> str:
    return str(getattr(own, "__name__", type(own).__name__))
