"""Which calls of a host's Chamfer train, and with which loss.

A call trains if gradients are recorded and one of its two clouds requires one. Every other call, such as the one that
selects the best checkpoint, is the host's. So is every call if no loss is chosen.

This module does not import torch: patched files import it before the host has chosen its devices.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ..announce import announce
from ..chosen import VARIABLE, chosen_loss
from ..errors import ApmlError
from . import guard

F = TypeVar("F", bound=Callable[..., Any])

LOSS = "_apml_loss"
"""Attribute of an object whose own config chose a loss: (value, opts)."""
MARK = "__apml_gate__"
"""Attribute of whatever is gated already."""


@dataclass
class State:
    """What the calls of this process share.

    Attributes:
        named: (value, opts) of the loss that the host's config chose for the whole run.
        built: text of (value, opts) -> (loss, where it was chosen).
        announced: labels and places about which a line was printed.
        validations: `keeps_host_loss` functions that run now. DataParallel runs a model in threads, so this counts
            for every thread.
        here: in each thread, `suspended`: the `no_training` blocks that it is in.
    """

    named: tuple[Any, Any] | None = None
    built: dict[str, tuple[Any, str]] = field(default_factory=dict)
    announced: set[str] = field(default_factory=set)
    validations: int = 0
    here: threading.local = field(default_factory=threading.local)


state = State()


def lets_loss_through(parameter: str, known: str) -> Callable[[F], F]:
    """Decorator for a function that chooses its loss by the string `parameter` and does not know our names.

    If the value names one of our losses (with ``APML_LOSS`` set: for any value), the host's code gets `known`, a name
    of its Chamfer, and training uses the chosen loss.
    """

    def decorate(function: F) -> F:
        if hasattr(function, MARK):
            return function
        signature = inspect.signature(function)

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            if parameter not in bound.arguments:
                return function(*args, **kwargs)
            value = bound.arguments[parameter]
            bound.arguments[parameter] = passed = host_loss_name(value, known, bound.arguments.get("self"))
            return function(*args, **kwargs) if passed is value else function(*bound.args, **bound.kwargs)

        setattr(wrapper, MARK, True)
        return wrapper  # type: ignore[return-value]

    return decorate


def host_loss_name(value: Any, known: str, owner: Any = None, opts: Any = None) -> Any:
    """`value` if it is one of the host's own names; `known` if it names one of our losses, which is then chosen.

    owner: the object that trains with it; without one, the whole run does. opts: what may hold ``loss_opts``.
    """
    beside = opts.get("loss_opts") if isinstance(opts, Mapping) else getattr(opts, "loss_opts", None)
    wanted, given, where = chosen_loss(value, beside)
    if where == VARIABLE:
        # A name that looks like a Chamfer may stay: the object that the host builds for it is replaced.
        return value if isinstance(value, str) and value.lower().startswith(("cd", "chamfer")) else known
    from ..registry import looks_like_loss

    if value is None or not looks_like_loss(wanted):
        return value
    guard.arm(guard.asked_for(value, where))
    entry = (wanted, given if isinstance(wanted, str) else None)
    if owner is None or opts is not None:
        choose(*entry)
    else:
        owner.__dict__[LOSS] = entry
    return known


def choose(value: Any, opts: Any) -> None:
    """Makes a loss that the host's config names the loss of every gate in this process."""
    state.named = (value, opts)


def keeps_host_loss(function: F) -> F:
    """Decorator for a validation that records gradients nevertheless: inside it, the host's own loss is used."""
    if hasattr(function, MARK):
        return function

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with _validating():
            return function(*args, **kwargs)

    @functools.wraps(function)
    def steps(*args: Any, **kwargs: Any) -> Any:
        iterator = function(*args, **kwargs)
        while True:
            with _validating():  # but not while the caller uses what was yielded
                try:
                    item = next(iterator)
                except StopIteration as end:
                    return end.value
            yield item

    wrapper = steps if inspect.isgeneratorfunction(function) else wrapper
    setattr(wrapper, MARK, True)
    return wrapper  # type: ignore[return-value]


@contextmanager
def _validating() -> Iterator[None]:
    """In the main thread it counts for all threads, because DataParallel runs a model in several; else for this one."""
    if threading.current_thread() is not threading.main_thread():
        with no_training():
            yield
        return
    state.validations += 1
    try:
        yield
    finally:
        state.validations -= 1


@contextmanager
def no_training() -> Iterator[None]:
    """Gated calls of this thread in this block are the host's."""
    suspended = getattr(state.here, "suspended", 0)
    state.here.suspended = suspended + 1
    try:
        yield
    finally:
        state.here.suspended = suspended


def _records() -> bool:
    """Whether gradients are recorded, and no code around the call says that it only measures."""
    torch = sys.modules.get("torch")
    suspended = state.validations or getattr(state.here, "suspended", 0)
    return torch is not None and not suspended and torch.is_grad_enabled()


def trains(*clouds: Any) -> bool:
    """Whether a call with these two clouds is one of training."""
    torch = sys.modules.get("torch")
    return (
        torch is not None
        and _records()
        and len(clouds) == 2
        and all(isinstance(cloud, torch.Tensor) and cloud.dim() == 3 for cloud in clouds)
        and any(cloud.requires_grad for cloud in clouds)
    )


def loss_for(clouds: tuple[Any, ...], owner: Any) -> Any:
    """(loss, where it was chosen) for a call with these clouds, or None if the call is the host's.

    owner: the object whose method is called; its config may have chosen a loss of its own.
    """
    chosen = owner.__dict__.get(LOSS) if hasattr(owner, "__dict__") else None
    value, opts, where = chosen_loss(*(chosen or state.named or ()))
    if value is None:
        return None
    if where == VARIABLE and not guard.state.asked:
        guard.arm(guard.asked_for(value, where))
    if not trains(*clouds):
        if len(clouds) == 2 and _records():
            tensors = [cloud for cloud in clouds if hasattr(cloud, "requires_grad")]
            if len(tensors) == 2 and not any(cloud.requires_grad for cloud in tensors):
                guard.saw("neither cloud requires a gradient")
            else:
                stays("a Chamfer", "is not called with two tensors (B, N, 3)")
        return None
    key = repr((value, opts))
    if key not in state.built:
        with building():
            state.built[key] = (_build(value, opts, where), where)
    return state.built[key]


@contextmanager
def building() -> Iterator[None]:
    """Around what builds a loss: an error in `APML_LOSS` ends the process with that message alone, no traceback.

    The user wrote it on a command line, and no code of the host is to blame. Errors in a config are raised.
    """
    try:
        yield
    except ApmlError as error:
        text = os.environ.get(VARIABLE, "").strip()
        if not text:
            raise
        guard.stop(str(error) if str(error).startswith(VARIABLE) else f"{VARIABLE}={text!r}: {error}")


def _build(value: Any, opts: Any, where: str) -> Any:
    from ..errors import LossValueError
    from ..losses import PerStage, Schedule
    from ..registry import build_loss

    loss = build_loss(value, opts)
    for part in loss.modules():
        if isinstance(part, PerStage | Schedule):
            what = "the stage" if isinstance(part, PerStage) else "the epoch"
            raise LossValueError(
                f"loss ({where}): {type(part).__name__} cannot be used, because this host does not give {what}; "
                "choose one fixed loss, such as {NAME: APML, reduction: mean}"
            )
    return loss


def stays(label: str, why: str) -> None:
    """Reports a call of training that stays the host's: to the guard, and to the user once for each place."""
    place = guard.place()
    guard.saw(f"{label} {why}")
    if guard.state.asked and place not in state.announced:
        state.announced.add(place)
        announce(f"[apml] {place}: {label} {why}; this call stays the host's own")
