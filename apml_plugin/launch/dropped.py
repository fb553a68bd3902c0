"""What newer libraries dropped and older hosts use: one table, library by library.

:data:`TABLE` names a library's module and what is done to it right after it ran. What comes back does so only where it
is missing, or where today's call can only fail, and is announced when it is first used. Standard library only: it is
read at the start of every interpreter of a run.
"""

from __future__ import annotations

import collections.abc
import functools
import importlib.util
import math
import os
import re
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from apml_plugin.announce import tell

Change = Callable[[ModuleType], None]


def gone(says: str, **names: Any) -> Change:
    """Names that the module has no more: it answers for them as it did. ``says`` may hold ``{name}``."""

    def change(module: ModuleType) -> None:
        lost = {name: value for name, value in names.items() if name not in vars(module)}
        before = vars(module).get("__getattr__")

        def __getattr__(name: str) -> Any:
            if name in lost:
                tell(module.__name__, says.format(name=name))
                return lost[name]
            if before is None:
                raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
            return before(name)

        if lost:
            module.__getattr__ = __getattr__  # type: ignore[method-assign]

    return change


def changed(path: str, wrap: Callable[[Any], Any]) -> Change:
    """``name`` or ``Class.name`` becomes ``wrap`` of what it is, None where there is none."""

    def change(module: ModuleType) -> None:
        *owner, name = path.split(".")
        place = getattr(module, owner[0], None) if owner else module
        if place is not None:
            setattr(place, name, wrap(getattr(place, name, None)))

    return change


def module_gone(name: str, says: str, **names: Any) -> Change:
    """A module that is no more comes back with ``names``, by default with what the module of the table has."""

    def change(module: ModuleType) -> None:
        if name not in sys.modules and importlib.util.find_spec(name) is None:
            sys.modules[name] = ModuleType(name)
            gone(says, **(names or vars(module)))(sys.modules[name])

    return change


def _find_loader(name: str, path: Any = None) -> Any:
    """The loader of module ``name``, None if there is no such module. ``path`` is not looked at."""
    spec = importlib.util.find_spec(name)
    return None if spec is None else spec.loader


def _reading_bytes(fromstring: Any) -> Any:
    @functools.wraps(fromstring)
    def call(string: Any, dtype: Any = float, count: int = -1, *, sep: str = "", **kwargs: Any) -> Any:
        if sep or kwargs or isinstance(string, str):
            return fromstring(string, dtype, count, sep=sep, **kwargs)
        tell("fromstring", "np.fromstring of bytes, gone from NumPy, is answered by np.frombuffer")
        return sys.modules["numpy"].frombuffer(string, dtype, count).copy()  # type: ignore[attr-defined]

    return call


def _with_projection(gca: Any) -> Any:
    @functools.wraps(gca)
    def call(self: Any, **kwargs: Any) -> Any:
        try:
            return gca(self, **kwargs)
        except TypeError:
            if not kwargs:
                raise
        tell("gca", "Figure.gca(projection=...), gone from Matplotlib, is answered by Figure.add_subplot")
        if self.axes and gca(self).name == kwargs.get("projection", "rectilinear"):
            return gca(self)
        return self.add_subplot(**kwargs)

    return call


def _rgb(present: Any) -> Any:
    def tostring_rgb(self: Any) -> bytes:
        """Red, green and blue of each pixel, row by row."""
        import numpy as np

        tell("tostring_rgb", "tostring_rgb, gone from Matplotlib, is answered by buffer_rgba")
        return np.asarray(self.buffer_rgba())[..., :3].tobytes()

    return present or tostring_rgb


def _channels_last(add_image: Any) -> Any:
    channels = (1, 3, 4)

    @functools.wraps(add_image)
    def call(self: Any, tag: Any, img_tensor: Any, *args: Any, **kwargs: Any) -> Any:
        shape = tuple(getattr(img_tensor, "shape", ()))
        said = "dataformats" in kwargs or len(args) > 2
        if not said and len(shape) == 3 and shape[0] not in channels and shape[2] in channels:
            tell("add_image", "add_image of shape (H, W, C) without dataformats is read as tensorboardX 1.2 did")
            kwargs["dataformats"] = "HWC"
        return add_image(self, tag, img_tensor, *args, **kwargs)

    return call


def _old_keywords(init: Any) -> Any:
    from inspect import signature

    names, known = {"t_mul": "cycle_mul", "decay_rate": "cycle_decay"}, signature(init).parameters
    lost = {old: new for old, new in names.items() if old not in known and new in known}

    @functools.wraps(init)
    def call(*args: Any, **kwargs: Any) -> Any:
        for old, new in lost.items():
            if old in kwargs and new not in kwargs:
                tell("t_mul", "CosineLRScheduler's t_mul and decay_rate, gone from timm, are cycle_mul and cycle_decay")
                kwargs[new] = kwargs.pop(old)
        return init(*args, **kwargs)

    return call


def _without_operators(extension: ModuleType) -> None:
    """Declares the operators of a torchvision that is not for this PyTorch, so that it can be imported, and timm too.

    torchvision registers fake kernels for a few of them whether they are there or not, which PyTorch refuses.
    Calling one still raises torchvision's own error: there is nothing behind the declarations.
    """
    if extension._has_ops():
        return
    import torch

    with open(
        os.path.join(os.path.dirname(str(extension.__file__)), "_meta_registrations.py"), encoding="utf-8"
    ) as file:
        names = re.findall(r"\"torchvision::(\w+)\"\)", file.read())
    # Kept by the module: a library that is collected takes its declarations along.
    library = vars(extension)["_apml_library"] = torch.library.Library("torchvision", "FRAGMENT")
    for name in sorted(set(names)):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    tell(
        "operators",
        f"torchvision at {extension.__file__} was built for another PyTorch: its compiled operators "
        f"({', '.join(names)} and more) fail when called, all else works. "
        "Install the torchvision that fits your PyTorch to have them",
    )


TABLE: dict[str, tuple[Change, ...]] = {
    "importlib": (
        gone("importlib.{name}, gone since Python 3.12, is answered by find_spec", find_loader=_find_loader),
    ),
    "numpy": (  # np.float and the like (1.24), np.asscalar (1.23), fromstring (2.3)
        gone(
            "np.{name}, which this NumPy has no more, is given as it was; others like it too",
            **{"float": float, "int": int, "bool": bool, "object": object, "asscalar": lambda array: array.item()},
        ),
        changed("fromstring", _reading_bytes),
    ),
    "matplotlib.figure": (changed("Figure.gca", _with_projection),),  # 3.7
    "matplotlib.backends.backend_agg": (changed("FigureCanvasAgg.tostring_rgb", _rgb),),  # 3.10
    "tensorboardX.writer": (changed("SummaryWriter.add_image", _channels_last),),  # 1.3
    "torch.utils.tensorboard.writer": (changed("SummaryWriter.add_image", _channels_last),),
    "timm.scheduler.cosine_lr": (changed("CosineLRScheduler.__init__", _old_keywords),),  # 0.5
    "torch.utils": (  # 2.0; timm up to 0.5 imports it
        module_gone(
            "torch._six",
            "torch._six.{name}, gone from PyTorch, is given as it was; others like it too",
            **{"container_abcs": collections.abc, "string_classes": (str, bytes), "int_classes": int, "inf": math.inf},
        ),
    ),
    "pytorch_lightning.core": (  # 2.0
        module_gone("pytorch_lightning.core.lightning", "pytorch_lightning.core.lightning is pytorch_lightning.core"),
    ),
    "torchvision.extension": (_without_operators,),
}
"""The module -> what is done to it. In brackets the version that dropped it."""


def prepare(module: ModuleType) -> None:
    """Does to a module of :data:`TABLE` what the table says."""
    for change in TABLE[module.__name__]:
        change(module)
