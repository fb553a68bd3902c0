"""What every named loss is, and how it declares itself: an nn.Module with plain numbers, decorated once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from torch import Tensor, nn

from apml_plugin.matching.inputs import Lengths

DECLARED: dict[str, type[PointLoss]] = {}
"""Every declared loss by its name. The registry, ``apml losses``, ``apml_plugin.<Name>`` and the tests read it."""

TWO_CLOUDS = "two clouds"

L = TypeVar("L", bound="type[PointLoss]")


def declare(*, takes: str = TWO_CLOUDS, nested: tuple[str, ...] = (), package: str = "") -> Callable[[L], L]:
    """Class decorator that makes a loss known by its class name. Nothing else is needed to add a loss.

    The arguments are those of the class's ``__init__``, and what the loss is for is the first paragraph of its
    docstring.

    Args:
        takes: what it is called with, in a few words.
        nested: arguments that are losses themselves; a config gives them by name or as a mapping.
        package: an optional package that it computes with where that is installed.

    >>> @declare()
    ... class Centroid(PointLoss):
    ...     "Distance of the centroids."
    ...     def forward(self, pred, gt, pred_lengths=None, gt_lengths=None):
    ...         return (pred.mean(1) - gt.mean(1)).norm(dim=-1).mean()
    """

    def register(cls: L) -> L:
        cls.takes, cls.nested, cls.package = takes, nested, package
        DECLARED[cls.__name__] = cls
        return cls

    return register


class PointLoss(nn.Module):
    """A loss between two batches of clouds.

    ``forward(pred (B, N, D), gt (B, M, D), pred_lengths=None, gt_lengths=None)`` gives a 0-dim tensor on the device
    of ``pred``, or (B,) where ``reduction="none"`` is offered. It has no parameters and no buffers, so checkpoints
    made with another loss load strictly.
    """

    takes: ClassVar[str] = TWO_CLOUDS
    nested: ClassVar[tuple[str, ...]] = ()
    package: ClassVar[str] = ""
    needs: ClassVar[str] = ""
    """What errors say about the call where two clouds are not enough; empty where they are."""
    aliases: ClassVar[dict[str, str]] = {}
    """Other names that a config may use for an argument: {other name: argument}."""

    def options(self) -> dict[str, Any]:
        """The arguments by name, resolved, in the order of the signature."""
        return {name: getattr(self, name) for name in arguments_of(type(self))}

    def describe(self) -> str:
        """One line: ``APML(p_min=0.8, ...)``."""
        return f"{type(self).__name__}({self.extra_repr()})"

    def extra_repr(self) -> str:
        shown = {key: value for key, value in self.options().items() if (key, value) != ("check_finite", True)}
        return ", ".join(f"{key}={_show(value)}" for key, value in shown.items())

    def set_epoch(self, epoch: int) -> None:
        """Called by hosts at the start of an epoch; only schedules use it."""

    def forward(self, pred: Tensor, gt: Tensor, pred_lengths: Lengths = None, gt_lengths: Lengths = None) -> Tensor:
        raise NotImplementedError


def arguments_of(cls: type) -> dict[str, inspect.Parameter]:
    """The arguments that a loss takes by name, including those it passes on to its parent class as ``**options``."""
    parameters_by_name: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        if base is nn.Module:
            break
        if "__init__" not in vars(base):
            continue
        parameters = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
        for p in parameters:
            if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
                parameters_by_name.setdefault(p.name, p)
        if all(p.kind is not p.VAR_KEYWORD for p in parameters):
            break
    return parameters_by_name


def summary_of(cls: type) -> str:
    """What a loss is for: the first paragraph of its docstring, without reStructuredText marks."""
    text = (inspect.getdoc(cls) or "").split("\n\n")[0].replace("\n", " ")
    return text.replace("``", "").replace(":func:", "").replace(":class:", "").replace("`", "")


def describe(loss: nn.Module) -> str:
    """One line for any loss module, of this package or not."""
    return loss.describe() if isinstance(loss, PointLoss) else type(loss).__name__


def _show(value: Any) -> str:
    if isinstance(value, nn.Module):
        return describe(value)
    return f"{value:g}" if isinstance(value, float) else str(value)
