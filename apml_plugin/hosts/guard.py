"""No optimiser steps with another loss than the one that was asked for.

Where a loss was asked for, the first optimiser step of a process waits for a value of ours that was differentiated.
If there is none, the run stops with a message and a non-zero exit code, however the host treats exceptions. Once a
value of ours was differentiated, the hook is gone and a step costs what it cost before.

Nothing here imports torch: patched files load this before the host has decided on its devices.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

FOLDER = "APML_RUN_FOLDER"
"""Folder of an ``apml run``: its processes leave a file there for each of `CARRIED`, `TRAINED`, `STOPPED`."""
CARRIED, TRAINED, STOPPED = "carried", "trained", "stopped"

FROM_STEP = "APML_LOSS_FROM_STEP"
"""Optimiser steps that a host may take before it first uses the loss (``apml run --loss-from-step N``)."""

PATIENCE = 100
"""Steps of one optimiser that may come before the first step of another, as a GAN's discriminator takes."""

BY_HAND = """\
    from apml_plugin.hooks import training_value
    loss = training_value(loss, pred, gt)"""


class Stop(SystemExit):
    """Ends the process with exit code 1. Not an Exception, so that no ``except Exception`` swallows it."""


asked = ""
trained = False
stopped = ""
seen: dict[str, str] = {}
notes: list[str] = []
"""What the host's source says of losses that stay the host's, each with file:line: for the message."""
_steps: dict[int, int] = {}
_undo: list[Callable[[], Any]] = []
_backwards = 0


def arm(what: str) -> None:
    """From now on an optimiser step needs a value of ours. what: who asked for which loss, for messages."""
    global asked
    if not asked:
        atexit.register(_at_exit)
    asked = asked or what
    install()


def install() -> None:
    """Registers the hook on optimiser steps; does nothing before torch is imported, or twice."""
    torch = sys.modules.get("torch")
    if _undo or not asked or trained or not hasattr(torch, "optim"):
        return
    from torch.nn.modules.module import register_module_forward_hook
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    # A host may also use a loss of ours by itself, without any of `apml_plugin.hooks`.
    hooks = [register_optimizer_step_pre_hook(_before_step), register_module_forward_hook(_after_forward)]
    _undo.extend(hook.remove for hook in hooks)
    backward = torch.Tensor.backward  # type: ignore[union-attr]

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        global _backwards
        _backwards += 1
        return backward(self, *args, **kwargs)

    torch.Tensor.backward = counted  # type: ignore[union-attr]
    _undo.append(lambda: setattr(torch.Tensor, "backward", backward))  # type: ignore[union-attr]


def watch(value: Any) -> Any:
    """`value`, a tensor of ours: that it is differentiated is what the guard waits for."""
    if not trained and value.requires_grad:
        value.register_hook(_differentiated)
    return value


def saw(why: str) -> None:
    """A call of a Chamfer distance stays the host's, and why: the place of the call goes into the message."""
    if asked and not trained:
        seen.setdefault(place(), why)


def mark(what: str) -> None:
    """Leaves a file for the parent of the run."""
    folder = os.environ.get(FOLDER)
    if folder and os.path.isdir(folder):
        with open(os.path.join(folder, what), "a", encoding="utf-8"):
            pass


def stop(message: str) -> None:
    """Ends the run: a message on stderr, now, and exit code 1 even where the host swallows what is raised."""
    global stopped
    if not stopped:
        stopped = message
        mark(STOPPED)
        atexit.register(_at_exit)
        print(f"[apml] stopped: {message}", file=sys.stderr, flush=True)
    raise Stop(1)


def _differentiated(gradient: Any) -> None:
    global trained
    if not trained:
        trained = True
        for undo in _undo:
            undo()
        _undo.clear()
        mark(TRAINED)


def _after_forward(module: Any, given: Any, value: Any) -> None:
    kind = type(module)
    if kind.__module__.startswith("apml_plugin.losses.") and hasattr(value, "requires_grad"):
        watch(value)


def _before_step(optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if stopped:
        raise Stop(1)
    closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
    if not callable(closure):
        _judge(optimizer)
        return None

    # Lightning and LBFGS compute the loss in the closure, so it comes first.
    def judged(*given: Any, **named: Any) -> Any:
        value = closure(*given, **named)
        _judge(optimizer)
        return value

    if "closure" in kwargs:
        return args, {**kwargs, "closure": judged}
    return (args[0], judged, *args[2:]), kwargs


def _judge(optimizer: Any) -> None:
    if trained:
        return
    _steps[id(optimizer)] = _steps.get(id(optimizer), 0) + 1
    if sum(_steps.values()) <= int(os.environ.get(FROM_STEP) or 0):
        return
    if _steps[id(optimizer)] < PATIENCE and any(id(other) not in _steps for other in _optimizers()):
        return
    stop(_message())


def _optimizers() -> list[Any]:
    """The optimisers of this process that have something to train."""
    import gc

    base = sys.modules["torch"].optim.Optimizer
    return [o for o in gc.get_objects() if issubclass(type(o), base) and any(g["params"] for g in o.param_groups)]


def _message() -> str:
    lines = [f"{asked}, but no value of that loss was differentiated before an optimiser steps ({place()})."]
    lines += [f"  {at}: {why}" for at, why in seen.items()]
    lines += [f"  {text.partition('. By hand')[0]}" for text in notes if not text.startswith(tuple(seen))]
    if len(lines) == 1:
        lines.append("  no call of a Chamfer distance was seen")
    return "\n".join(
        [
            *lines,
            "Add these two lines behind the line that computes the training loss (clouds (B, N, 3) and (B, M, 3)):",
            BY_HAND,
            "If the host trains with something else first, say for how many steps: apml run --loss-from-step N",
        ]
    )


def _at_exit() -> None:
    """An exit code cannot be changed any other way this late; registered early, so that it runs last."""
    crashed = hasattr(sys, "last_type")  # the host's own traceback says what is wrong
    if not stopped and not crashed and asked and not trained and (_steps or _backwards):
        if sum(_steps.values()) <= int(os.environ.get(FROM_STEP) or 0) and _steps:
            message = f"{asked}, but the process ended before step {os.environ[FROM_STEP]}"
        else:
            message = _message()
        with contextlib.suppress(Stop):
            stop(message)
    if stopped:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


def caller() -> FrameType:
    """The frame of the host's code that is running."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        file = frame.f_code.co_filename
        if not file.startswith(_OWN) and "site-packages" not in file and not file.startswith("<"):
            break
        frame = frame.f_back
    return frame


def place() -> str:
    """file:line of the host's code that is running."""
    frame = caller()
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


_OWN = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")
