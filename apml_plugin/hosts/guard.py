"""Stops a run that asked for a loss and is about to train without it.

Once a loss was asked for (`arm`), an optimiser may step only after a value of that loss was differentiated. Otherwise
the run stops with a message and exit code 1, however the host treats exceptions. After the first differentiated value
all hooks are removed, so that later steps cost nothing.

This module does not import torch: patched files import it before the host has chosen its devices.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from ..chosen import VARIABLE
from ..errors import LossValueError

FOLDER = "APML_RUN_FOLDER"
"""Environment variable: the folder in which the processes of an ``apml run`` create the files below.

Each process that carries the plugin keeps the file CARRIED open, and so do those that it forks.
"""
CARRIED, TRAINED, STOPPED = "carried", "trained", "stopped"

FROM_STEP = "APML_LOSS_FROM_STEP"
"""Environment variable: optimiser steps allowed before the loss is first used (``apml run --loss-from-step N``)."""

PATIENCE = 100
"""Steps that one optimiser may take before the first step of another, such as those of a GAN's discriminator."""

BY_HAND = """\
    from apml_plugin.hooks import training_value
    loss = training_value(loss, pred, gt)"""


class Stop(SystemExit):
    """Ends the process with exit code 1. It is no Exception, so ``except Exception`` does not catch it."""


@dataclass
class State:
    """What the guard of this process knows.

    Attributes:
        asked: "WHO asks for LOSS", for messages; empty if nobody did.
        trained: whether a value of the loss was differentiated.
        stopped: the message that the run was stopped with.
        seen: file:line of a Chamfer call that stayed the host's -> why.
        notes: losses in the host's source that stay the host's, each with file:line and the reason.
        steps: id of an optimiser -> its steps so far.
        backwards: calls of ``Tensor.backward``, and of ``torch.autograd.grad`` by parameters, so far.
        undo: functions that remove the hooks.
    """

    asked: str = ""
    trained: bool = False
    stopped: str = ""
    seen: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    steps: dict[int, int] = field(default_factory=dict)
    backwards: int = 0
    undo: list[Callable[[], Any]] = field(default_factory=list)


state = State()


def arm(what: str) -> None:
    """Requires a value of the loss before the next optimiser step. what: "WHO asks for LOSS"."""
    if not (os.environ.get(FROM_STEP) or "0").isdigit():
        raise LossValueError(f"{FROM_STEP}={os.environ[FROM_STEP]!r} must be a number of steps, such as 1000")
    if not state.asked:
        atexit.register(_at_exit)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_forked)
    state.asked = state.asked or what
    install()


def asked_for(value: Any, where: str) -> str:
    """The text for `arm` of a loss that an environment variable, or a config, names."""
    return f"{where if where == VARIABLE else 'loss:'} asks for {value!r}"


def install() -> None:
    """Registers the hooks. Does nothing before torch is imported, or if they are registered already."""
    torch = sys.modules.get("torch")
    if state.undo or not state.asked or state.trained or not hasattr(torch, "optim"):
        return
    from torch.nn.modules.module import register_module_forward_hook
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    # The host may also call a loss of this plugin itself, without any of `apml_plugin.hooks`.
    hooks = [register_optimizer_step_pre_hook(_before_step), register_module_forward_hook(_after_forward)]
    state.undo.extend(hook.remove for hook in hooks)
    # Loops may do without an optimiser, and processes may end without exit handlers, as forked ones do.
    for module, name, wrapper in (
        (torch.autograd, "backward", _backward),  # type: ignore[union-attr]  # Tensor.backward calls it, too
        (torch.autograd, "grad", _grad),  # type: ignore[union-attr]
        (os, "_exit", _checked_exit),
    ):
        own = getattr(module, name)
        setattr(module, name, functools.partial(wrapper, own))
        state.undo.append(functools.partial(setattr, module, name, own))


def _backward(own: Any, *args: Any, **kwargs: Any) -> Any:
    state.backwards += 1
    return own(*args, **kwargs)


def _grad(own: Any, outputs: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
    parameter = sys.modules["torch"].nn.Parameter
    state.backwards += any(
        isinstance(value, parameter) for value in (inputs if isinstance(inputs, tuple | list) else [inputs])
    )
    return own(outputs, inputs, *args, **kwargs)


def _checked_exit(own: Any, status: int) -> Any:
    _at_exit()
    return own(status)


def _forked() -> None:
    """A forked process, such as a loader's worker, has taken no steps of its own."""
    state.steps.clear()
    state.backwards = 0


def watch(value: Any) -> Any:
    """Returns `value`, a tensor of the loss, and notes when it is differentiated."""
    if not state.trained and value.requires_grad:
        value.register_hook(_differentiated)
    return value


def saw(why: str) -> None:
    """Notes why the Chamfer call that is running stays the host's; the message names its place."""
    if state.asked and not state.trained:
        state.seen.setdefault(place(), why)


def mark(what: str) -> None:
    """Creates the file `what` for the parent process of ``apml run``."""
    folder = os.environ.get(FOLDER)
    if folder and os.path.isdir(folder):
        with open(os.path.join(folder, what), "a", encoding="utf-8"):
            pass


def stop(message: str) -> None:
    """Ends the run with a message on stderr and exit code 1, even if the host catches what is raised."""
    if not state.stopped:
        state.stopped = message
        mark(STOPPED)
        atexit.register(_at_exit)
        print(f"[apml] stopped: {message}", file=sys.stderr, flush=True)
    if threading.current_thread() is not threading.main_thread():
        _exit()  # an exception would end this thread alone, and the main one would report something else
    raise Stop(1)


def carry() -> None:
    """Tells the parent process of ``apml run`` that this one, with all it forks, carries the plugin."""
    folder = os.environ.get(FOLDER)
    if folder and os.path.isdir(folder):
        os.open(os.path.join(folder, CARRIED), os.O_CREAT | os.O_WRONLY)  # left open, see FOLDER


def _differentiated(gradient: Any) -> None:
    if not state.trained and not gradient.any():
        state.seen["the value of the loss"] = "its gradient is 0, because the host multiplies it by 0"
    elif not state.trained:
        state.trained = True
        for undo in state.undo:
            undo()
        state.undo.clear()
        mark(TRAINED)


def _after_forward(module: Any, given: Any, value: Any) -> None:
    kind = type(module)
    ours = kind.__module__.startswith("apml_plugin.losses.") and hasattr(value, "requires_grad")
    asked = state.asked.rpartition(" asks for ")[2]
    if ours and re.search(rf"\b{kind.__name__}\b", asked):  # another loss of ours is another loss
        watch(value)


def _before_step(optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if state.stopped:
        raise Stop(1)
    closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
    if not callable(closure):
        _judge(optimizer)
        return None

    # Lightning and LBFGS compute the loss in the closure, so the step is judged after it.
    def judged(*given: Any, **named: Any) -> Any:
        value = closure(*given, **named)
        _judge(optimizer)
        return value

    if "closure" in kwargs:
        return args, {**kwargs, "closure": judged}
    return (args[0], judged, *args[2:]), kwargs


def _judge(optimizer: Any) -> None:
    # Some loops step once before training, without a gradient, to silence a scheduler: that changes no weight.
    if state.trained or all(p.grad is None for group in optimizer.param_groups for p in group["params"]):
        return
    state.steps[id(optimizer)] = state.steps.get(id(optimizer), 0) + 1
    if sum(state.steps.values()) <= int(os.environ.get(FROM_STEP) or 0):
        return
    if state.steps[id(optimizer)] < PATIENCE and any(id(other) not in state.steps for other in _optimizers()):
        return
    stop(_message())


def _optimizers() -> list[Any]:
    """The optimisers of this process that have parameters."""
    import gc

    base = sys.modules["torch"].optim.Optimizer
    return [o for o in gc.get_objects() if issubclass(type(o), base) and any(g["params"] for g in o.param_groups)]


def _message() -> str:
    lines = [f"{state.asked}, but no value of that loss was differentiated before an optimiser steps ({place()})."]
    lines += [f"  {at}: {why}" for at, why in state.seen.items()]
    lines += [f"  {text.partition('. By hand')[0]}" for text in state.notes if not text.startswith(tuple(state.seen))]
    if len(lines) == 1:
        lines.append("  no call of a Chamfer distance was seen")
    return "\n".join(
        [
            *lines,
            "Add these two lines after the line that computes the training loss (clouds (B, N, 3) and (B, M, 3)):",
            BY_HAND,
            "If the host trains with another loss first, give the number of those steps: apml run --loss-from-step N",
        ]
    )


def _at_exit() -> None:
    """Sets the exit code of a run that trained without the loss. Registered early, so that it runs last."""
    interrupted = getattr(sys, "last_type", None) is KeyboardInterrupt
    if not state.stopped and not interrupted and state.asked and not state.trained and (state.steps or state.backwards):
        if sum(state.steps.values()) <= int(os.environ.get(FROM_STEP) or 0) and state.steps:
            message = f"{state.asked}, but the process ended before step {os.environ[FROM_STEP]}"
        else:
            message = _message()
        with contextlib.suppress(Stop):
            stop(message)
    if state.stopped:
        _exit()


def _exit() -> None:
    """Ends the process with exit code 1; from an exit handler or a thread there is no other way."""
    sys.stdout.flush()
    sys.stderr.flush()
    _leave(1)


def _caller() -> FrameType:
    """The innermost frame that is in the host's code."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        file = frame.f_code.co_filename
        if not file.startswith(_OWN) and "site-packages" not in file and not file.startswith("<"):
            break
        frame = frame.f_back
    return frame


def place() -> str:
    """file:line of the innermost frame that is in the host's code."""
    frame = _caller()
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


_leave = os._exit  # a host may end by it, and `install` checks that
_OWN = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")
