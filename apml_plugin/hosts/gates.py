"""Gates: a host's Chamfer in training becomes the chosen loss, and stays the host's everywhere else.

A call counts as training if gradients are recorded and one of its two clouds wants one; every other call, such as
the one that selects the best checkpoint, is the host's own. With no loss chosen, so is every call, bit for bit.
`apml_plugin.hooks` documents what inserted lines call.

Nothing here imports torch: patched files load this before the host has decided on its devices.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..announce import announce
from ..chosen import VARIABLE, chosen_loss
from . import guard
from .interrupted import interrupted, interrupted_caller

OWN = "_apml_loss"
"""Attribute of an object that trains with a loss of its own choosing."""

MARK = "__apml_gate__"
named: list[Any] = []
"""(value, opts) of the loss that the host's config chose for the whole run; empty or one entry."""

GT_NAMES = ("gt", "target", "label", "truth", "complete")
_LENGTHS = {"x_lengths": "pred_lengths", "y_lengths": "gt_lengths"}
_WEIGHING = ("weights", "x_weights", "y_weights", "batch_weights")
_built: dict[str, tuple[Any, str]] = {}
_told: set[str] = set()
_validations = 0
"""How many `keeps_host_loss` functions are running. For every thread: DataParallel runs a model in threads."""
_local = threading.local()
"""measuring: in how many `no_training` blocks this thread is, while replicas in other threads train."""


def eager(function: Any) -> Any:
    """`function`, which torch.compile calls as it is: what a gate decides is not for a graph."""
    made: list[Any] = []

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not made and "torch._dynamo" in sys.modules:
            made.append(sys.modules["torch"].compiler.disable(function))
        return (made[0] if made else function)(*args, **kwargs)

    return call


def trains_with_loss(function: Any = None, *, per_sample: bool = False) -> Any:
    if function is None:
        return functools.partial(trains_with_loss, per_sample=per_sample)
    if hasattr(function, MARK) or interrupted(function):
        return function
    names = list(inspect.signature(function).parameters)
    skip = 1 if names[:1] in (["self"], ["cls"]) else 0
    names = names[skip:]
    gt_first = bool(names) and names[0].lower().startswith(GT_NAMES)
    label = f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"

    @eager
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        clouds = (*args[skip:], *(kwargs[name] for name in names[len(args) - skip :] if name in kwargs))[:2]
        loss = loss_for(clouds, args[0] if skip and args else None)
        if loss is None:
            return function(*args, **kwargs)
        pred, gt = _ordered(clouds, gt_first)
        if not per_sample:
            return _number(loss, pred, gt, label)
        with no_training():
            own = function(*args, **kwargs)
        values = _per_sample(loss, pred, gt, label)
        if not isinstance(own, tuple | list):
            return values
        entries = list(own)
        for i, entry in enumerate(entries[:2]):
            if getattr(entry, "shape", None) == values.shape:
                entries[i] = values
        return type(own)(entries) if type(own) in (tuple, list) else entries

    setattr(wrapper, MARK, True)
    return wrapper


def training_loss(own: Any) -> Any:
    if hasattr(own, MARK) or interrupted_caller():
        return own
    torch = sys.modules.get("torch")
    if isinstance(own, type):
        # In place: the host may ask isinstance, or derive from it.
        name = "forward" if torch is not None and issubclass(own, torch.nn.Module) else "__call__"
        if MARK not in vars(own) and name in vars(own):
            setattr(own, name, _gated_function(getattr(own, name)))
            setattr(own, MARK, True)
        return own
    if inspect.isfunction(own):
        return _gated_function(own)
    if torch is not None and isinstance(own, torch.nn.Module):
        # On the instance: its class, state and hooks stay. A partial of a plain function can be copied and pickled.
        own.forward = functools.partial(_gated_forward, own)
        object.__setattr__(own, MARK, True)
        return own
    return TrainingLoss(own)


class TrainingLoss:
    """A gated function or object; attributes are those of the host's own."""

    def __init__(self, own: Any) -> None:
        self.own = own
        setattr(self, MARK, True)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return gated(self.own, args, kwargs, name_of(self.own), self)

    def __getattr__(self, name: str) -> Any:
        if name in ("own", MARK):  # not there yet while being unpickled
            raise AttributeError(name)
        return getattr(self.own, name)


def _gated_forward(module: Any, *args: Any, **kwargs: Any) -> Any:
    return gated(functools.partial(type(module).forward, module), args, kwargs, type(module).__name__, module)


def _gated_function(function: Any) -> Any:
    """A function or method; it stays a function, so that it may be a decorated method, and can be pickled."""
    skip = 1 if next(iter(inspect.signature(function).parameters), "") in ("self", "cls") else 0
    label = f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return gated(functools.partial(function, *args[:skip]), args[skip:], kwargs, label, args[0] if skip else call)

    setattr(call, MARK, True)
    return call


@eager
def training_value(own: Any, *clouds: Any, label: str = "") -> Any:
    loss = loss_for(clouds, None)
    if loss is None:
        return own() if callable(own) else own
    return _number(loss, *_ordered(clouds, False), label or "the host's loss")


@eager
def gated(own: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], label: str, holder: Any, loss: Any = None) -> Any:
    """The result of ``own(*args, **kwargs)`` with the chosen loss in the place of its Chamfer value, in training.

    What `own` gives is found out once for each holder (`kind_of`); a result of a kind that cannot be replaced is
    passed on, and the guard is told. loss: a function of (pred, gt) to use, by default the loss of the run.
    """
    clouds = (*args, *kwargs.values())[:2]
    chosen = (loss, "") if loss is not None else loss_for(clouds, None)
    if chosen is None:
        return own(*args, **kwargs)
    rest, more, lengths = dict(list(kwargs.items())[max(0, 2 - len(args)) :]), args[2:], {}
    if more:
        with contextlib.suppress(TypeError, ValueError):  # a compiled function has no signature
            rest = {**dict(zip(list(inspect.signature(own).parameters)[2:], more, strict=False)), **rest}
            more = more[len(inspect.signature(own).parameters) - 2 :]
    for name, ours in _LENGTHS.items():
        if rest.get(name) is not None:
            lengths[ours] = rest.pop(name)
    weighing = [name for name in _WEIGHING if rest.get(name) is not None]
    kind = f"takes {weighing[0]} into account" if weighing else _kind(own, clouds, more, rest, holder)
    if kind not in KINDS:
        _stays(label, kind)
        return own(*args, **kwargs)
    pred, gt = _ordered(clouds, False)
    if clouds[1].requires_grad and not clouds[0].requires_grad and lengths:
        lengths = {"pred_lengths": lengths.get("gt_lengths"), "gt_lengths": lengths.get("pred_lengths")}
    value = (_per_sample if kind.endswith("sample") else _number)(chosen, pred, gt, label, **lengths)
    if not kind.startswith("first"):
        return value
    with no_training():
        result = own(*args, **kwargs)
    return type(result)([value, *result[1:]]) if type(result) in (tuple, list) else (value, *result[1:])


KINDS = ("number", "per sample", "first number", "first per sample")
"""What a gate can replace: one number, one value (B,) per sample, or either as the first entry of a tuple."""


def kind_of(own: Callable[..., Any], like: Any, more: tuple[Any, ...] = (), kwargs: Mapping[str, Any] = {}) -> str:
    """One of `KINDS`, or why `own` is none of them: found by calling it with three tiny pairs of clouds.

    In the clouds a and b (2, 16, D) every point of a is one of b, but not the reverse. A distance of both directions
    is above zero for (a, b) and for (b, a), and zero for (a, a). like: a tensor whose device, dtype and layout the
    clouds get. Text that begins with "cannot be probed" means that the call failed.
    """
    import torch

    transposed = _is_transposed(like)
    line = torch.arange(16.0)
    columns = [0.1 + 0.05 * line, 0.2 + 0.03 * (line * 7 % 16), 0.3 + 0.02 * (line * 5 % 16)]
    grid = torch.stack([columns[i % 3] for i in range(like.shape[1 if transposed else 2])], dim=1)
    b = grid.expand(2, *grid.shape).to(like.device, like.dtype).contiguous()
    a = b.clone()
    a[:, 15] = a[:, 14]
    if transposed:
        a, b = a.transpose(1, 2).contiguous(), b.transpose(1, 2).contiguous()
    try:
        with torch.no_grad(), no_training():
            results = [own(x, y, *more, **kwargs) for x, y in ((a, b), (b, a), (a, a))]
    except Exception as error:
        return f"cannot be probed ({type(error).__name__}: {error})"
    first = isinstance(results[0], tuple | list) and len(results[0]) > 0
    entries = [r[0] if first else r for r in results]
    if not all(isinstance(e, torch.Tensor) and e.is_floating_point() and e.shape in ((), (2,)) for e in entries):
        return "gives raw distances or indices, which the host's code goes on with"
    there, back, same = (float(e.abs().max()) for e in entries)
    if same > 0.5 * max(there, back):
        return "is no distance of its two clouds alone"
    if min(there, back) <= 1.01 * same + 1e-12:
        return "measures one direction only"
    return ("first " if first else "") + ("number" if entries[0].dim() == 0 else "per sample")


def _kind(own: Any, clouds: tuple[Any, ...], more: tuple[Any, ...], kwargs: dict[str, Any], holder: Any) -> str:
    tensors = any(hasattr(value, "data_ptr") for value in (*more, *kwargs.values()))
    key = None if tensors else (_is_transposed(clouds[0]), repr(more), repr(kwargs))
    known: dict[Any, str] = holder.__dict__.get("_apml_kinds", {})
    if key not in known:
        kind = kind_of(own, clouds[0], more, kwargs)
        if kind.startswith("cannot be probed"):
            kind = _kind_of_result(own, clouds, more, kwargs) or kind
        known = {**known, key: kind}
        object.__setattr__(holder, "_apml_kinds", known)
    return known[key]


def _kind_of_result(own: Any, clouds: tuple[Any, ...], more: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """The kind by the shape of a result alone, where an object takes no clouds but the host's."""
    import torch

    with torch.no_grad(), no_training():
        result = own(*clouds, *more, **kwargs)
    first = isinstance(result, tuple | list) and len(result) > 0
    value = result[0] if first else result
    if not isinstance(value, torch.Tensor) or value.shape not in ((), (len(clouds[0]),)):
        return ""
    return ("first " if first else "") + ("number" if value.dim() == 0 else "per sample")


def lets_loss_through(parameter: str, known: str) -> Callable[[Any], Any]:
    def decorate(function: Any) -> Any:
        if hasattr(function, MARK) or interrupted(function):
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
        return wrapper

    return decorate


def host_loss_name(value: Any, known: str, owner: Any = None, opts: Any = None) -> Any:
    if interrupted_caller():
        return value
    beside = opts.get("loss_opts") if isinstance(opts, Mapping) else getattr(opts, "loss_opts", None)
    wanted, given, where = chosen_loss(value, beside)
    if where == VARIABLE:
        # A name of the host's that is a Chamfer by its looks may stay: its Chamfer is the one that is replaced.
        return value if isinstance(value, str) and value.lower().startswith(("cd", "chamfer")) else known
    from ..registry import looks_like_loss

    if value is None or not looks_like_loss(wanted):
        return value
    guard.arm(f"loss: {value!r} was asked for")
    entry = (wanted, given if isinstance(wanted, str) else None)
    if owner is None or opts is not None:
        choose(*entry)
    else:
        owner.__dict__[OWN] = entry
    return known


def choose(value: Any, opts: Any) -> None:
    """Make a loss that the host's config names the one of every gate of this process."""
    named[:] = [(value, opts)]


def keeps_host_loss(function: Any) -> Any:
    if hasattr(function, MARK) or interrupted(function):
        return function

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with _validating():
            return function(*args, **kwargs)

    @functools.wraps(function)
    def steps(*args: Any, **kwargs: Any) -> Any:
        iterator = function(*args, **kwargs)
        while True:
            with _validating():  # not while the caller goes on with what was yielded
                try:
                    item = next(iterator)
                except StopIteration as end:
                    return end.value
            yield item

    wrapper = steps if inspect.isgeneratorfunction(function) else wrapper
    setattr(wrapper, MARK, True)
    return wrapper


@contextmanager
def _validating() -> Iterator[None]:
    """In the main thread also for the threads in which DataParallel runs a model; a validation beside the training
    counts in its own thread alone."""
    global _validations
    if threading.current_thread() is not threading.main_thread():
        with no_training():
            yield
        return
    _validations += 1
    try:
        yield
    finally:
        _validations -= 1


@contextmanager
def no_training() -> Iterator[None]:
    """Calls in this block, in this thread, are the host's own."""
    _local.measuring = _measuring() + 1
    try:
        yield
    finally:
        _local.measuring -= 1


def _measuring() -> int:
    return getattr(_local, "measuring", 0)


def trains(*clouds: Any) -> bool:
    """Whether a call with these two clouds records a gradient, and no code around it says that it measures."""
    torch = sys.modules.get("torch")
    return (
        torch is not None
        and not (_validations or _measuring())
        and torch.is_grad_enabled()
        and len(clouds) == 2
        and all(isinstance(cloud, torch.Tensor) and cloud.dim() == 3 for cloud in clouds)
        and any(cloud.requires_grad for cloud in clouds)
    )


def loss_for(clouds: tuple[Any, ...], owner: Any) -> Any:
    """(loss, where it was named) for this call, or None for the host's own."""
    own = owner.__dict__.get(OWN) if hasattr(owner, "__dict__") else None
    value, opts, where = chosen_loss(*(own or (named[0] if named else ())))
    if value is None:
        return None
    if where == VARIABLE and not guard.asked:
        guard.arm(f"{VARIABLE} asks for {value!r}")
    if not trains(*clouds):
        if len(clouds) == 2 and sys.modules["torch"].is_grad_enabled() and not (_validations or _measuring()):
            tensors = [cloud for cloud in clouds if hasattr(cloud, "requires_grad")]
            if len(tensors) == 2 and not any(cloud.requires_grad for cloud in tensors):
                guard.saw("neither cloud wants a gradient")
            else:
                _stays("a Chamfer", "is not called with two tensors (B, N, 3)")
        return None
    key = repr((value, opts))
    if key not in _built:
        _built[key] = (_build(value, opts, where), where)
    return _built[key]


def _build(value: Any, opts: Any, where: str) -> Any:
    from ..errors import LossValueError
    from ..losses import PerStage, Schedule
    from ..registry import build_loss

    loss = build_loss(value, opts)
    for part in loss.modules():
        if isinstance(part, PerStage | Schedule):
            what = "stages apart" if isinstance(part, PerStage) else "the epoch"
            raise LossValueError(
                f"loss ({where}): {type(part).__name__} cannot be used, this host does not tell {what}; "
                "give one fixed loss, such as {NAME: APML, reduction: mean}"
            )
    return loss


def _ordered(clouds: tuple[Any, ...], gt_first: bool) -> tuple[Any, Any]:
    """(pred, gt): the one that wants a gradient is the prediction. Clouds (B, 3, N) are turned to (B, N, 3)."""
    first, second = clouds
    if _is_transposed(first) and _is_transposed(second):
        first, second = first.transpose(1, 2).contiguous(), second.transpose(1, 2).contiguous()
    if first.requires_grad == second.requires_grad:
        return (second, first) if gt_first else (first, second)
    return (first, second) if first.requires_grad else (second, first)


def _is_transposed(cloud: Any) -> bool:
    return bool(cloud.shape[1] == 3 != cloud.shape[2])


def _number(loss: tuple[Any, str], pred: Any, gt: Any, label: str, **lengths: Any) -> Any:
    from ..errors import LossValueError

    value = loss[0](pred, gt, **lengths)
    if value.dim() != 0:
        raise LossValueError(
            f"the loss gave a tensor of shape {tuple(value.shape)}, but {label} gives one number: "
            "use reduction: mean or reduction: sum"
        )
    _say(loss, label)
    return guard.watch(value)


def _per_sample(loss: tuple[Any, str], pred: Any, gt: Any, label: str, **lengths: Any) -> Any:
    """One value per sample, (B,), whatever the loss's reduction."""
    import torch

    if any(getattr(part, "reduction", None) == "none" for part in getattr(loss[0], "modules", list)()):
        values = loss[0](pred, gt, **lengths)
    else:
        values = torch.stack(
            [
                loss[0](
                    pred[i : i + 1], gt[i : i + 1], **{k: v if v is None else v[i : i + 1] for k, v in lengths.items()}
                ).reshape(())
                for i in range(len(pred))
            ]
        )
    _say(loss, label)
    return guard.watch(values)


def _stays(label: str, why: str) -> None:
    """A call that records a gradient stays the host's: told to the guard, and to the user once for each place."""
    place = guard.place()
    guard.saw(f"{label} {why}")
    if guard.asked and place not in _told:
        _told.add(place)
        announce(f"[apml] {place}: {label} {why}; this call stays the host's own")


def _say(loss: tuple[Any, str], label: str) -> None:
    if label in _told or not loss[1]:
        return
    from ..registry import describe

    _told.add(label)
    announce(
        f"[apml] {label} trains with {describe(loss[0])} (from {loss[1]}); calls without a gradient, such as "
        "validation's, keep the host's own"
    )


def name_of(own: Any) -> str:
    own = getattr(own, "func", own)  # of a functools.partial
    return str(getattr(own, "__name__", type(own).__name__))
