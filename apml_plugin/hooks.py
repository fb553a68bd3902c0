"""What the lines that `apml patch` inserts into a host import, and what you import for a line by hand.

Nothing here moves or changes its meaning: a clone that was patched once keeps working. Nothing here imports torch.

By hand, in a training loop of any kind:

>>> from apml_plugin.hooks import training_value
>>> loss = training_value(loss, pred, gt)  # doctest: +SKIP

The line stands behind the one that computes the host's own `loss`. Under ``apml run --loss APML``, or with
``APML_LOSS=APML`` in the environment, `loss` is then that of APML; otherwise it is the host's, unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from .chosen import VARIABLE, chosen_loss
from .hosts import csi2pointcloud, gates, guard
from .hosts.pointr import decorating

__all__ = [
    "csi2pointcloud", "hoists_loss", "host_loss_name", "keeps_host_loss", "lets_loss_through", "takes_loss",
    "training_loss", "training_value", "trains_with_loss",
]  # fmt: skip

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


def training_value(own: Any, *clouds: Any, label: str = "") -> Any:
    """The chosen loss of ``(pred, gt)`` in training, else the host's value.

    Args:
        own: the host's value, or a function without arguments that computes it.
        clouds: pred (B, N, 3) and gt (B, M, 3). The one that wants a gradient is the prediction.
        label: what messages call this loss.

    Returns a 0-dim tensor where gradients are recorded, one of the clouds wants one, and a loss is chosen; else `own`
    (or what it returns). Raises LossValueError for a loss with ``reduction: none``, and what building the loss raises.

    >>> loss = training_value(loss, pred, gt)  # doctest: +SKIP
    """
    return gates.training_value(own, *clouds, label=label)


def training_loss(own: Any) -> Any:
    """`own`, a Chamfer object, class or function, with the chosen loss in its place in training.

    ``own(pred (B, N, 3), gt (B, M, 3), ...)`` may give one number, one value (B,) per sample, or a tuple with one of
    these first, as pytorch3d's ``(loss, loss_normals)``: that value becomes ours in calls that record a gradient. An
    object that measures one direction only, or gives raw distances, stays what it is. Modules and classes are changed
    in place and returned; a function comes back wrapped. Twice is as good as once.

    >>> chamfer = training_loss(chamfer)  # doctest: +SKIP
    """
    return gates.training_loss(own)


def trains_with_loss(function: Any = None, *, per_sample: bool = False) -> Any:
    """Decorator for a two-sided Chamfer function ``f(pred (B, N, 3), gt (B, M, 3), ...)``, or such a method.

    per_sample: it gives a vector (B,), or a tuple whose first entries are such vectors: those become ours. Without it,
    it gives one number. If both clouds want a gradient, the first is the prediction, unless its name says ``gt``.
    """
    return gates.trains_with_loss(function, per_sample=per_sample)


def lets_loss_through(parameter: str, known: str) -> Callable[[F], F]:
    """Decorator for a function that chooses its loss by the string `parameter` and does not know our names.

    A value that names one of our losses (any value, with ``APML_LOSS`` set) reaches the host's code as `known`, a name
    of its Chamfer; training then uses ours.
    """
    return gates.lets_loss_through(parameter, known)


def host_loss_name(value: Any, known: str, owner: Any = None, opts: Any = None) -> Any:
    """`value` if it is one of the host's own names; `known` if it names one of our losses, which is then chosen.

    owner: the object whose training it is (without one, the whole run's). opts: where ``loss_opts`` may be.
    """
    return gates.host_loss_name(value, known, owner, opts)


def keeps_host_loss(function: F) -> F:
    """Decorator for a validation that records gradients all the same: in it, the host's own loss counts."""
    return gates.keeps_host_loss(function)


def takes_loss(obj: T) -> T:
    """Decorator for the function ``build(config, ...)`` that makes models, or for one model class.

    The model that comes out trains with the loss its config names under ``loss:``, or that ``APML_LOSS`` names. Without
    either nothing is different. A class is changed in place and returned, so pickling and registries keep working.
    """
    return decorating.takes_loss(obj)


def hoists_loss(read: F) -> F:
    """Decorator for the function that reads a YAML: a top-level ``loss:`` of ours moves under ``model:``.

    A ``loss:`` that is something else, such as a mapping of weights, stays where it is. ``metrics:`` adds our metrics
    to the host's own.
    """
    return decorating.hoists_loss(read)  # type: ignore[return-value]


if chosen_loss()[0] is not None:
    # In a patched clone, too, nothing may train before a value of ours was differentiated.
    guard.arm(f"{VARIABLE} asks for {chosen_loss()[0]!r}")
