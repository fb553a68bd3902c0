"""The module that replaces a host's loss in a model."""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from ...errors import LossValueError
from ...losses import PerStage
from ...registry import set_epoch
from .. import calls, gates, guard
from ..same_tensor import same_tensor
from .stages import check_stages, stage_names

_WRAPPED = "__apml_get_loss__"
_INTERNAL = set(vars(nn.Module()))
_Memo = tuple[nn.Module, torch.Tensor, torch.Tensor, torch.Tensor, tuple[int, ...]]


class HostLoss(nn.Module):
    """`loss(pred (B, N, 3), gt (B, M, 3))`: the chosen loss in training, the host's own everywhere else.

    It has no parameters and no buffers, so checkpoints load and save as without it. A pair of clouds that comes twice
    within one `get_loss` is computed once: FoldingNet and TopNet return one cloud as both coarse and fine.

    Args:
        own: the host's loss, which is also used for stages that keep it.
        stages: what the calls within one `get_loss` are for, in order; None if only a run shows it. A call outside
            of `get_loss` counts as the last stage.
        chosen: stage -> loss. For unknown stages, a PerStage or one loss under "".
        host_class: the class of the model.
    """

    def __init__(
        self, own: Any, stages: tuple[str, ...] | None, chosen: Mapping[str, nn.Module], host_class: type
    ) -> None:
        super().__init__()
        self.own = own
        self.stages = stages
        self.chosen = nn.ModuleDict({name or "every stage": loss for name, loss in chosen.items()})
        self.host_class = host_class
        self.running = False
        self.counting = False
        self._call = 0
        self._memo: list[_Memo] = []

    def begin(self, epoch: int | None) -> None:
        """A `get_loss` starts: its calls are counted from zero, and schedules get the epoch, if it is known."""
        self.running, self._call, self._memo = True, 0, []
        if epoch is not None:
            for loss in self.chosen.values():
                set_epoch(loss, int(epoch))

    def end(self) -> None:
        """The `get_loss` ends: its tensors are released."""
        self.running, self._memo = False, []

    @property
    def must_count(self) -> bool:
        """Whether losses differ by stage, so that the calls of a `get_loss` must be counted first."""
        return self.stages is None and any(isinstance(loss, PerStage) for loss in self.chosen.values())

    def name_stages(self) -> None:
        """Names the stages after a `get_loss` that only counted. Raises LossValueError for an unknown stage."""
        self.stages = stage_names(self._call)
        losses: PerStage = self.chosen["every stage"]  # type: ignore[assignment]
        check_stages(self.host_class.__name__, losses.names, self.stages)
        parts = {name: losses.stage(name) for name in self.stages}
        self.chosen = nn.ModuleDict({name: part for name, part in parts.items() if part is not None})

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self.counting:
            self._call += 1
            return self.own(*args, **kwargs)
        clouds = (*args, *kwargs.values())[:2]
        loss = self._next()
        if loss is self.own or not calls.trains(*clouds):
            if loss is not self.own and torch.is_grad_enabled():
                guard.saw(f"{gates.name_of(self.own)} is not called with two clouds of which one wants a gradient")
            return self.own(*args, **kwargs)
        return gates.gated(self.own, args, kwargs, gates.name_of(self.own), self, functools.partial(self._value, loss))

    def _value(self, loss: nn.Module, pred: torch.Tensor, gt: torch.Tensor, **lengths: Any) -> torch.Tensor:
        for used, old_pred, old_gt, value, versions in self._memo:
            # The host may have changed a tensor in place since (`value += ...`).
            fresh = used is loss and versions == _versions(old_pred, old_gt, value)
            if fresh and same_tensor(pred, old_pred) and same_tensor(gt, old_gt):
                return value.clone()
        value = loss(pred, gt, **lengths)
        if self.running:
            self._memo.append((loss, pred, gt, value, _versions(pred, gt, value)))
        return value

    def _next(self) -> Any:
        if self.stages is None:
            if self.must_count:
                raise LossValueError(
                    f"{self.host_class.__name__} does not compute its loss in get_loss, so stages cannot be told "
                    "apart; give one loss for all of them"
                )
            return next(iter(self.chosen.values()))
        call = self._call if self.running else len(self.stages) - 1
        self._call += 1
        if call < len(self.stages):
            stage = self.stages[call]
            return self.chosen[stage] if stage in self.chosen else self.own  # noqa: SIM401 (a ModuleDict has no get)
        used = list(self.chosen.values())
        if len(self.chosen) == len(self.stages) and all(loss is used[0] for loss in used):
            return used[0]
        raise LossValueError(
            f"{self.host_class.__name__}.get_loss asks for its loss more than {len(self.stages)} times "
            f"({', '.join(self.stages)}), so stages cannot be told apart; give one loss for all of them"
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A model that is unpickled in a new process needs its class wrapped there, too."""
        super().__setstate__(state)
        ensure_wrapped(self.host_class)


class Slot(NamedTuple):
    """Where a model holds an object: in an attribute of one of its modules, or in a dict or list in one."""

    name: str
    own: Any
    put: Callable[[Any], None]


def slots(model: nn.Module) -> list[Slot]:
    """Everything that a model holds, modules or not."""
    found = []
    for path, module in model.named_modules():
        for key, value in [*vars(module).items(), *module._modules.items()]:
            if key in _INTERNAL:
                continue
            name = f"{path}.{key}".removeprefix(".")
            found.append(Slot(name, value, functools.partial(setattr, module, key)))
            if isinstance(value, dict | list | nn.ModuleDict | nn.ModuleList):
                inner = value.items() if isinstance(value, dict | nn.ModuleDict) else enumerate(value)
                found += [
                    Slot(f"{name}[{at!r}]", own, functools.partial(operator.setitem, value, at)) for at, own in inner
                ]
    return found


def attached(model: nn.Module) -> tuple[HostLoss, ...]:
    """The losses that `attach` put into a model."""
    return tuple({id(slot.own): slot.own for slot in slots(model) if isinstance(slot.own, HostLoss)}.values())


def ensure_wrapped(cls: type) -> None:
    """Wraps `get_loss` in the class that defines it. Idempotent."""
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
        # In a subclass that calls super().get_loss(), only the outer call counts.
        if not losses or losses[0].running:
            return original(self, *args, **kwargs)
        epoch = signature.bind(self, *args, **kwargs).arguments.get("epoch")
        _count_calls(losses, functools.partial(original, self, *args, **kwargs))
        for loss in losses:
            loss.begin(epoch)
        try:
            return original(self, *args, **kwargs)
        finally:
            for loss in losses:
                loss.end()

    setattr(get_loss, _WRAPPED, original)
    return get_loss


def _count_calls(losses: tuple[HostLoss, ...], get_loss: Any) -> None:
    """Calls `get_loss` once to count its calls, if losses differ by stage and only a run shows the stages."""
    counting = [loss for loss in losses if loss.must_count]
    if not counting:
        return
    for loss in counting:
        loss.counting, loss._call = True, 0
    with torch.no_grad():
        get_loss()
    for loss in counting:
        loss.counting = False
        loss.name_stages()


def _versions(*tensors: torch.Tensor) -> tuple[int, ...]:
    """How often each tensor was changed in place; inference tensors keep no count."""
    return tuple(0 if tensor.is_inference() else tensor._version for tensor in tensors)
