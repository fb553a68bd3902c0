"""Which calls of a host train, and what they get: the chosen loss of the two clouds, in the right order."""

from __future__ import annotations

import atexit
import multiprocessing
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .announce import announce
from .chosen import VARIABLE, chosen_loss

OWN = "_apml_loss"
"""Attribute of an object that trains with a loss of its own choosing."""

_built: dict[str, tuple[Any, Any]] = {}
named: list[Any] = []
_told: set[str] = set()
_validating = 0
_waiting = False
_used = 0


def loss_for(clouds: tuple[Any, ...], owner: Any) -> Any:
    """The loss this call takes, or None for the host's own."""
    own = owner.__dict__.get(OWN) if hasattr(owner, "__dict__") else None
    value, opts, where = chosen_loss(*(own or (named[0] if named else ())))
    if value is None or len(clouds) < 2:
        return None
    torch = sys.modules.get("torch")
    if torch is None or not torch.is_grad_enabled() or _validating:
        return None
    if not all(isinstance(cloud, torch.Tensor) and cloud.dim() == 3 for cloud in clouds[:2]):
        return None
    if not any(cloud.requires_grad for cloud in clouds[:2]):
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


def ordered(first: Any, second: Any, gt_first: bool) -> tuple[Any, Any]:
    """(pred, gt): the one that wants a gradient is the prediction. Clouds (B, 3, N) are turned to (B, N, 3)."""
    if all(cloud.shape[1] == 3 != cloud.shape[2] for cloud in (first, second)):
        first, second = first.transpose(1, 2).contiguous(), second.transpose(1, 2).contiguous()
    if first.requires_grad == second.requires_grad:
        return (second, first) if gt_first else (first, second)
    return (first, second) if first.requires_grad else (second, first)


def value_of(loss: tuple[Any, Any], pred: Any, gt: Any, label: str) -> Any:
    from ..errors import LossValueError

    value = loss[0](pred, gt)
    if value.dim() != 0:
        raise LossValueError(
            f"the loss gave a tensor of shape {tuple(value.shape)}, but {label} gives one number: "
            "use reduction: mean or reduction: sum"
        )
    _say(loss, label)
    return value


def values_of(loss: tuple[Any, Any], pred: Any, gt: Any, label: str) -> Any:
    """One value per sample, (B,), whatever the loss's reduction."""
    import torch

    if any(getattr(part, "reduction", None) == "none" for part in loss[0].modules()):
        values = loss[0](pred, gt)
    else:
        values = torch.stack([loss[0](pred[i : i + 1], gt[i : i + 1]).reshape(()) for i in range(len(pred))])
    _say(loss, label)
    return values


def replaced(own: Any, values: Any) -> Any:
    """The host's result with its leading vectors (B,) replaced: the Chamfer of each pair, in one or two norms."""
    if not isinstance(own, tuple | list):
        return values
    entries = list(own)
    for i, entry in enumerate(entries[:2]):
        if getattr(entry, "shape", None) == values.shape:
            entries[i] = values
    return type(own)(entries) if type(own) in (tuple, list) else entries


def _say(loss: tuple[Any, Any], label: str) -> None:
    global _used
    _used += 1
    if label in _told:
        return
    from ..registry import describe

    _told.add(label)
    announce(
        f"[apml] {label} trains with {describe(loss[0])} (from {loss[1]}); calls without a gradient, such as "
        "validation's, keep the host's own"
    )


def clouds_of(args: tuple[Any, ...], kwargs: Mapping[str, Any], names: list[str]) -> tuple[Any, ...]:
    given = [*args[:2], *(kwargs[name] for name in names[len(args[:2]) : 2] if name in kwargs)]
    return tuple(given[:2])


@contextmanager
def no_training() -> Iterator[None]:
    global _validating
    _validating += 1
    try:
        yield
    finally:
        _validating -= 1


def placed() -> None:
    """Something of the host waits for the loss: from now on it is worth a word if none is ever used."""
    global _waiting
    if not _waiting:
        atexit.register(_warn_if_unused)
    _waiting = True


def _warn_if_unused() -> None:
    if _used == 0 and chosen_loss()[2] == VARIABLE and multiprocessing.parent_process() is None:
        print(f"[apml] {VARIABLE} was given, but no training call of this process used it", file=sys.stderr)
