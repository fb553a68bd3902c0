"""What stands for the classes that hosts and NumPy leave in a checkpoint: shells that keep values and do nothing.

PyTorch's weights-only reader looks a name up in a table and calls what it finds there. This is that table for names
it does not know itself. A shell never imports the module it is named after, has no attribute that a file could set
and no method that does more than keep what it is given. A name that is not listed here stays refused.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from . import own

_METRICS = {
    "utils.metrics": ("Metrics",),
    "tools.runner_pretrain": ("Acc_Metric",),
    "tools.runner_finetune": ("Acc_Metric",),
}
_DISTANCES = {
    "extensions.chamfer_dist": (
        "ChamferDistance",
        "ChamferDistanceL1",
        "ChamferDistanceL1_PM",
        "ChamferDistanceL2",
        "ChamferDistanceL2_split",
    ),
    "extensions.emd.emd_module": ("emdModule",),
}
_NUMPY = {  # NumPy 2 moved the module; a file names it as it was called where it was made
    "numpy": ("dtype", "ndarray"),
    "numpy.core.multiarray": ("scalar", "_reconstruct"),
    "numpy._core.multiarray": ("scalar", "_reconstruct"),
}


class Shell:
    """An object of the file that was not made: the arguments and the state that it would have had."""

    __slots__ = ("args", "state")

    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        self = object.__new__(cls)
        self.args, self.state = args, None
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(f"{name_of(type(self))} was kept as plain values of a checkpoint and cannot be saved again")

    def __repr__(self) -> str:
        return f"<{name_of(type(self))} of a checkpoint, not made>"


class _Mapping:
    """An EasyDict of the file: an OrderedDict, the one mapping with attributes that weights-only readers fill."""

    __slots__ = ()

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return OrderedDict()


class _Container:
    """The class that a file from before PyTorch 1.6 describes as a module, itself one of our shells."""

    __slots__ = ()

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        if len(args) < 2 or not isinstance(args[1], type) or args[1] not in ALL:
            raise TypeError(f"the file describes {str(args[1:2])[:80]} as a module")
        return args[1]


class _NoBytes:
    """``bytes()``: how the pickles of torch.save say that there are none. With arguments it would make some."""

    __slots__ = ()

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        if args:
            raise TypeError("the file asks for bytes of something")
        return b""


def _shells(table: Mapping[str, tuple[str, ...]], kind: type = Shell) -> tuple[type, ...]:
    """A subclass of ``kind`` for each name, called as in the file: that is how PyTorch's reader finds it."""
    return tuple(
        type(name, (kind,), {"__module__": module, "__qualname__": name, "__slots__": ()})
        for module, names in table.items()
        for name in names
    )


def name_of(shell: type) -> str:
    return f"{shell.__module__}.{shell.__qualname__}"


METRICS = _shells(_METRICS)
DISTANCES = _shells(_DISTANCES)
NAMESPACE = _shells({"argparse": ("Namespace",)})
MAPPING = _shells({"easydict": ("EasyDict",)}, _Mapping)
_ARRAYS = _shells(_NUMPY)
DTYPE, NDARRAY = _ARRAYS[:2]
SCALARS, RECONSTRUCTS = _ARRAYS[2::2], _ARRAYS[3::2]

(CONTAINER,) = _shells({"apml_plugin.checkpoints.placeholders": ("CONTAINER",)}, _Container)

_BYTES = _shells({"builtins": ("bytes",)}, _NoBytes)

OWN = _shells(own.classes())
ALL: tuple[type, ...] = (CONTAINER, *_BYTES, *METRICS, *DISTANCES, *NAMESPACE, *MAPPING, *_ARRAYS, *OWN)
NAMES = frozenset(map(name_of, ALL))
