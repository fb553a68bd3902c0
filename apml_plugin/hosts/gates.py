"""Gates: a host's Chamfer becomes the chosen loss in calls that train, and stays the host's in all others.

Without a chosen loss, every result is bit-identical to the host's. Inserted lines call these functions through
`apml_plugin.hooks`.

This module does not import torch: patched files import it before the host has chosen its devices.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from collections.abc import Mapping
from typing import Any

from ..announce import announce
from ..eager import eager
from . import calls, guard
from .calls import MARK, loss_for, no_training
from .probing import KINDS, coordinates_first, kind_of, kind_of_result

GT_NAMES = ("gt", "target", "label", "truth", "complete")
"""What the name of a ground truth begins with."""
_LENGTHS = ("length", "lengths", "len", "lens")
"""What the names of two parameters end in that count the real points of each cloud."""
_OURS = ("pred_lengths", "gt_lengths")
_WEIGHTS = ("weights", "x_weights", "y_weights", "batch_weights")


def trains_with_loss(function: Any = None, *, per_sample: bool = False) -> Any:
    """Decorator for a two-sided Chamfer function ``f(pred (B, N, 3), gt (B, M, 3), ...)``, or such a method.

    per_sample: it returns a vector (B,), or a tuple whose first one or two entries are such vectors, which are
    replaced. Otherwise it returns one number. The prediction is found as in `training_value`; where that cannot tell,
    it is the first cloud, unless the parameter's name begins with ``gt``, ``target`` or the like.
    """
    if function is None:
        return functools.partial(trains_with_loss, per_sample=per_sample)
    if hasattr(function, MARK):
        return function
    skip, label = _signature(function)
    names = list(inspect.signature(function).parameters)[skip:]
    gt_first = bool(names) and names[0].lower().startswith(GT_NAMES)

    @eager()
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
            result = function(*args, **kwargs)
        values = _per_sample(loss, pred, gt, label)
        if not isinstance(result, tuple | list):
            return values
        entries = [values if getattr(e, "shape", None) == values.shape else e for e in result[:2]] + list(result[2:])
        return type(result)(entries) if type(result) in (tuple, list) else entries

    setattr(wrapper, MARK, True)
    return wrapper


def _signature(function: Any) -> tuple[int, str]:
    """(1 for a function whose first parameter is its object, else 0; what messages call the function)."""
    skip = 1 if next(iter(inspect.signature(function).parameters), "") in ("self", "cls") else 0
    return skip, f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"


def training_loss(own: Any) -> Any:
    """`own`, a Chamfer object, class or function, replaced by the chosen loss in training.

    ``own(pred (B, N, 3), gt (B, M, 3), ...)`` may return one number, one value (B,) per sample, or a tuple with one of
    these first, as pytorch3d's ``(loss, loss_normals)``, or with two, as ``(cd_l1, cd_l2)``. These values are replaced
    in calls that record a gradient. An
    object that measures one direction only, or returns raw distances, stays as it is. Modules and classes are changed
    in place and returned; a function is wrapped. Idempotent.

    >>> chamfer = training_loss(chamfer)  # doctest: +SKIP
    """
    if hasattr(own, MARK):
        return own
    torch = sys.modules.get("torch")
    if isinstance(own, type):
        # In place, because the host may use isinstance, or derive a class.
        name = "forward" if torch is not None and issubclass(own, torch.nn.Module) else "__call__"
        if MARK not in vars(own) and name in vars(own):
            setattr(own, name, _gated_function(getattr(own, name)))
            setattr(own, MARK, True)
        return own
    if inspect.isfunction(own):
        return _gated_function(own)
    if torch is not None and isinstance(own, torch.nn.Module):
        # On the instance, so that its class, state and hooks stay. A partial can be copied and pickled.
        own.forward = functools.partial(_gated_forward, own)
        object.__setattr__(own, MARK, True)
        return own
    return TrainingLoss(own)


class TrainingLoss:
    """A gated callable object of the host; its attributes are those of that object."""

    def __init__(self, own: Any) -> None:
        self.own = own
        setattr(self, MARK, True)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return gated(self.own, args, kwargs, name_of(self.own), self)

    def __getattr__(self, name: str) -> Any:
        if name in ("own", MARK):  # not set yet while it is unpickled
            raise AttributeError(name)
        return getattr(self.own, name)


def _gated_forward(module: Any, *args: Any, **kwargs: Any) -> Any:
    return gated(functools.partial(type(module).forward, module), args, kwargs, type(module).__name__, module)


def _gated_function(function: Any) -> Any:
    """The gated function; it stays a function, so that it can be a method, and can be pickled."""
    skip, label = _signature(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return gated(functools.partial(function, *args[:skip]), args[skip:], kwargs, label, args[0] if skip else call)

    setattr(call, MARK, True)
    return call


@eager()
def training_value(own: Any, *clouds: Any, label: str = "") -> Any:
    """The chosen loss of ``(pred, gt)`` in training, else the host's value.

    Args:
        own: the host's value, or a function without arguments that computes it.
        clouds: pred (B, N, 3) and gt (B, M, 3). The one that requires a gradient is the prediction; of two that do,
            the one that was computed.
        label: what messages call this loss.

    Returns a 0-dim tensor if gradients are recorded, one of the clouds requires one, and a loss is chosen; else `own`
    (or what it returns). Raises LossValueError for a loss with ``reduction: none``, and what building the loss raises.

    >>> loss = training_value(loss, pred, gt)  # doctest: +SKIP
    """
    loss = loss_for(clouds, None)
    if loss is None:
        return own() if callable(own) else own
    return _number(loss, *_ordered(clouds, False), label or "the host's loss")


@eager()
def gated(own: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], label: str, holder: Any, loss: Any = None) -> Any:
    """The result of ``own(*args, **kwargs)``, in which the chosen loss replaces the Chamfer value in training.

    Args:
        label: what messages call `own`.
        holder: the object on which the result's kind (`kind_of`) is kept after the first call.
        loss: a function of (pred, gt) in place of the loss of the run.

    A result of a kind that cannot be replaced is returned as it is, and the guard is told.
    """
    clouds = (*args, *kwargs.values())[:2]
    chosen = (loss, "") if loss is not None else loss_for(clouds, None)
    if chosen is None:
        return own(*args, **kwargs)
    rest, more, names = dict(list(kwargs.items())[max(0, 2 - len(args)) :]), args[2:], list(kwargs)
    with contextlib.suppress(TypeError, ValueError):  # a compiled function may have no signature
        names = list(inspect.signature(own).parameters)
        rest = {**dict(zip(names[2:], more, strict=False)), **rest}
        more = more[len(names) - 2 :]
    ends = [name for name in names[2:] if name.endswith(_LENGTHS)]
    pair = ends if len(ends) == 2 else ("x_lengths", "y_lengths")
    lengths = {ours: rest.pop(name) for ours, name in zip(_OURS, pair, strict=True) if rest.get(name) is not None}
    weights = [name for name in _WEIGHTS if rest.get(name) is not None]
    host = functools.partial(own, *args, **kwargs)
    kind = f"uses {weights[0]}" if weights else _kind(own, host, clouds, more, rest, holder)
    if kind not in KINDS:
        calls.stays(label, kind)
        return host()
    pred, gt = _ordered(clouds, False)
    if lengths and _prediction(*clouds) == 1:
        lengths = {ours: lengths.get(other) for ours, other in zip(_OURS, _OURS[::-1], strict=True)}
    value = (_per_sample if kind.endswith("sample") else _number)(chosen, pred, gt, label, **lengths)
    if not kind.startswith(("first", "both")):
        return value
    with no_training():
        result = host()
    values = [value, value] if kind.startswith("both") else [value]
    entries = [*values, *result[len(values) :]]
    return entries if type(result) is list else tuple(entries)


def _kind(own: Any, host: Any, clouds: tuple[Any, ...], more: tuple[Any, ...], kwargs: Any, holder: Any) -> str:
    """One of `KINDS`, or why the result of `host()` cannot be replaced.

    Found once for each holder and further arguments (`more`, `kwargs`), with which `own` is called to find it.
    """
    tensors = any(hasattr(value, "data_ptr") for value in (*more, *kwargs.values()))
    key = None if tensors else (coordinates_first(*clouds), repr(more), repr(kwargs))
    known: dict[Any, str] = holder.__dict__.get("_apml_kinds", {})
    if key not in known:
        with no_training():
            kind = kind_of(own, clouds[0], more, kwargs)
            if kind.startswith("cannot be probed"):  # it takes only clouds of the host: the shape must do
                with sys.modules["torch"].no_grad():
                    kind = kind_of_result(host(), len(clouds[0]))[0] or kind
        known = {**known, key: kind}
        object.__setattr__(holder, "_apml_kinds", known)
    return known[key]


def _ordered(clouds: tuple[Any, ...], gt_first: bool) -> tuple[Any, Any]:
    """(pred, gt), both (B, N, 3), from clouds in either order and layout."""
    second = _prediction(clouds[0], clouds[1], gt_first)
    if coordinates_first(*clouds):
        clouds = tuple(cloud.transpose(1, 2).contiguous() for cloud in clouds)
    return clouds[second], clouds[1 - second]


def _prediction(first: Any, second: Any, gt_first: bool = False) -> int:
    """0 or 1: the cloud that requires a gradient; of two, the one that was computed; else what `gt_first` says."""
    for a, b in ((first.requires_grad, second.requires_grad), (not first.is_leaf, not second.is_leaf)):
        if a != b:
            return int(b)
    return int(gt_first)


def _number(loss: tuple[Any, str], pred: Any, gt: Any, label: str, **lengths: Any) -> Any:
    from ..errors import LossValueError

    value = loss[0](pred, gt, **lengths)
    if value.dim() != 0:
        raise LossValueError(
            f"the loss returned a tensor of shape {tuple(value.shape)}, but {label} returns one number: "
            "use reduction: mean or reduction: sum"
        )
    _announce(loss, label)
    return guard.watch(value)


def _per_sample(loss: tuple[Any, str], pred: Any, gt: Any, label: str, **lengths: Any) -> Any:
    """One value per sample, (B,), for any reduction of the loss."""
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
    _announce(loss, label)
    return guard.watch(values)


def _announce(loss: tuple[Any, str], label: str) -> None:
    if label in calls.state.announced or not loss[1]:
        return
    from ..registry import describe

    calls.state.announced.add(label)
    announce(
        f"[apml] {label} trains with {describe(loss[0])} (from {loss[1]}); calls without a gradient, such as "
        "validation's, keep the host's own"
    )


def name_of(own: Any) -> str:
    """What messages call a host's loss."""
    own = getattr(own, "func", own)  # of a functools.partial
    return str(getattr(own, "__name__", type(own).__name__))
