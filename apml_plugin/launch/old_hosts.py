"""What newer libraries dropped and older hosts use: one table, library by library.

To add something: an entry in :data:`TABLE`, which names a library's module and the changes made right after it has
run. A name comes back only where it is missing, or where today's call can only fail; its first use is announced.
Standard library only: every interpreter of a run reads this file when it starts.
"""

from __future__ import annotations

import collections.abc
import functools
import importlib
import importlib.util
import math
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from apml_plugin.announce import tell, warn
from apml_plugin.launch import environment

Change = Callable[[ModuleType], None]


def gone(message: str, **names: Any) -> Change:
    """Names that the module no longer has come back. ``message``, announced on first use, may hold ``{name}``."""

    def change(module: ModuleType) -> None:
        lost = {name: value for name, value in names.items() if name not in vars(module)}
        before = vars(module).get("__getattr__")

        def __getattr__(name: str) -> Any:
            if name in lost:
                tell(module.__name__, message.format(name=name))
                return lost[name]
            if before is None:
                raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
            return before(name)

        if lost:
            module.__getattr__ = __getattr__  # type: ignore[method-assign]

    return change


def changed(path: str, call: Callable[..., Any]) -> Change:
    """Calls of ``name`` or ``Class.name`` become ``call(original, ...)``; nothing changes where it does not exist."""

    def change(module: ModuleType) -> None:
        *owner, name = path.split(".")
        place = getattr(module, owner[0], None) if owner else module
        original = getattr(place, name, None)
        if original is not None:
            wrapper = functools.wraps(original)(lambda *args, **kwargs: call(original, *args, **kwargs))
            setattr(place, name, wrapper)

    return change


def module_gone(name: str, message: str, **names: Any) -> Change:
    """A module that no longer exists comes back with ``names``, by default with those of the module of the table."""

    def change(module: ModuleType) -> None:
        if name not in sys.modules and importlib.util.find_spec(name) is None:
            sys.modules[name] = ModuleType(name)
            gone(message, **(names or vars(module)))(sys.modules[name])

    return change


def _find_loader(name: str, path: Any = None) -> Any:
    """The loader of module ``name``, None if there is no such module. ``path`` is ignored."""
    spec = importlib.util.find_spec(name)
    return None if spec is None else spec.loader


def _fromstring(original: Any, string: Any, dtype: Any = float, count: int = -1, *, sep: str = "", **more: Any) -> Any:
    if sep or more or isinstance(string, str):
        return original(string, dtype, count, sep=sep, **more)
    tell("fromstring", "np.fromstring of bytes, gone from NumPy, is answered by np.frombuffer")
    return sys.modules["numpy"].frombuffer(string, dtype, count).copy()


def _gca(original: Any, figure: Any, **kwargs: Any) -> Any:
    try:
        return original(figure, **kwargs)
    except TypeError:
        if not kwargs:
            raise
    tell("gca", "Figure.gca(projection=...), gone from Matplotlib, is answered by Figure.add_subplot")
    if figure.axes and original(figure).name == kwargs.get("projection", "rectilinear"):
        return original(figure)
    return figure.add_subplot(**kwargs)


def _tostring_rgb(backend: ModuleType) -> None:
    def tostring_rgb(self: Any) -> bytes:
        """Red, green and blue of each pixel, row by row."""
        import numpy as np

        tell("tostring_rgb", "tostring_rgb, gone from Matplotlib, is answered by buffer_rgba")
        return np.asarray(self.buffer_rgba())[..., :3].tobytes()

    canvas = backend.FigureCanvasAgg
    canvas.tostring_rgb = getattr(canvas, "tostring_rgb", tostring_rgb)


def _add_image(original: Any, writer: Any, tag: Any, img_tensor: Any, *args: Any, **kwargs: Any) -> Any:
    channels, shape = (1, 3, 4), tuple(getattr(img_tensor, "shape", ()))
    given = "dataformats" in kwargs or len(args) > 2
    if not given and len(shape) == 3 and shape[0] not in channels and shape[2] in channels:
        tell("add_image", "add_image of shape (H, W, C) without dataformats is read as tensorboardX 1.2 did")
        kwargs["dataformats"] = "HWC"
    return original(writer, tag, img_tensor, *args, **kwargs)


def _cosine_schedule(original: Any, *args: Any, **kwargs: Any) -> Any:
    from inspect import signature

    known = signature(original).parameters
    for old, new in {"t_mul": "cycle_mul", "decay_rate": "cycle_decay"}.items():
        if old in kwargs and old not in known and new in known and new not in kwargs:
            tell("t_mul", "CosineLRScheduler's t_mul and decay_rate, gone from timm, are cycle_mul and cycle_decay")
            kwargs[new] = kwargs.pop(old)
    return original(*args, **kwargs)


def _without_operators(extension: ModuleType) -> None:
    """Declares the operators of a torchvision that is not for this PyTorch, so that it can be imported, and timm too.

    torchvision registers fake kernels for a few of them whether they are there or not, which PyTorch refuses.
    Calling one still raises torchvision's own error: the declarations have no implementation.
    """
    if extension._has_ops():
        return
    import torch

    file = Path(str(extension.__file__)).with_name("_meta_registrations.py")
    names = re.findall(r"\"torchvision::(\w+)\"\)", file.read_text(encoding="utf-8"))
    # The module keeps a reference: the declarations end with the library object.
    library = vars(extension)["_apml_library"] = torch.library.Library("torchvision", "FRAGMENT")
    for name in sorted(set(names)):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    tell(
        "operators",
        f"torchvision at {extension.__file__} was built for another PyTorch: its compiled operators "
        f"({', '.join(names)} and more) fail when called, all else works. "
        "Install the torchvision that fits your PyTorch to have them",
    )


LOCAL_RANK = ("--local_rank", "--local-rank")


def _parse_known_args(original: Any, parser: Any, args: Any = None, namespace: Any = None) -> Any:
    """torchrun gives a process its rank in ``LOCAL_RANK`` alone; older launchers also passed it as an option."""
    rank = os.environ.get("LOCAL_RANK", "")
    # A parser of anything but the command line has nothing to do with the launcher.
    if rank.isdigit() and (args is None or list(args) == sys.argv[1:]):
        args = with_local_rank(parser, sys.argv[1:], rank)
    return original(parser, args, namespace)


def with_local_rank(parser: Any, words: Sequence[str], rank: str) -> list[str]:
    """`words` with the local rank in the spelling that `parser` knows; as they are if it knows none.

    torch.distributed.launch passes ``--local-rank=N``, older hosts know ``--local_rank`` only. A value that was given
    stays.
    """
    takes = {name: action.nargs for action in parser._actions for name in action.option_strings}
    known = [name for name in LOCAL_RANK if name in takes and takes[name] is None]
    if not known:
        return list(words)
    end = words.index("--") if "--" in words else len(words)
    options = [word.partition("=")[0] if i < end else "" for i, word in enumerate(words)]
    given = [option for option in options if option in LOCAL_RANK]
    if not given:
        tell("local_rank", f"{known[0]} is not given: it gets LOCAL_RANK of the launcher")
        return [known[0], rank, *words]
    if set(given) <= set(known):
        return list(words)
    tell("local_rank", f"{given[0]} of the launcher goes to this script's {known[0]}")
    return [
        known[0] + word.removeprefix(option) if option in LOCAL_RANK and option not in known else word
        for word, option in zip(words, options, strict=True)
    ]


def _load(original: Any, name: Any, *args: Any, **kwargs: Any) -> Any:
    """Hosts compile extensions when they start, some without asking whether the module is there.

    For a name with a stand-in, compiling is tried only if there is an nvcc; the stand-in comes if it fails.
    """
    settings = environment.read(os.environ)
    if settings is None or name not in settings.standins:
        return original(name, *args, **kwargs)
    if not settings.cpu and may_compile(name):
        try:
            return original(name, *args, **kwargs)
        except Exception as error:
            first = str(error).strip().partition("\n")[0]
            warn(f"{name}: compiling it failed ({type(error).__name__}: {first})")
    _failed.add(name)
    return importlib.import_module(name)


_failed: set[str] = set()


def may_compile(name: str) -> bool:
    """Whether compiling the extension ``name`` could work: there is an nvcc, and it has not failed in this process."""
    return name not in _failed and _has_nvcc()


@functools.cache
def _has_nvcc() -> bool:
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    return shutil.which("nvcc") is not None or os.path.exists(os.path.join(home, "bin", "nvcc"))


TABLE: dict[str, tuple[Change, ...]] = {
    "argparse": (changed("ArgumentParser.parse_known_args", _parse_known_args),),  # torchrun, from PyTorch 1.9
    "importlib": (
        gone("importlib.{name}, gone since Python 3.12, is answered by find_spec", find_loader=_find_loader),
    ),
    "numpy": (  # np.float and the like (1.24), np.asscalar (1.23), fromstring (2.3)
        gone(
            "np.{name}, gone from NumPy, is given as it was; others like it too",
            **{"float": float, "int": int, "bool": bool, "object": object, "asscalar": lambda array: array.item()},
        ),
        changed("fromstring", _fromstring),
    ),
    "matplotlib.figure": (changed("Figure.gca", _gca),),  # 3.7
    "matplotlib.backends.backend_agg": (_tostring_rgb,),  # 3.10
    "tensorboardX.writer": (changed("SummaryWriter.add_image", _add_image),),  # 1.3
    "torch.utils.tensorboard.writer": (changed("SummaryWriter.add_image", _add_image),),
    "timm.scheduler.cosine_lr": (changed("CosineLRScheduler.__init__", _cosine_schedule),),  # 0.5
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
    "torch.utils.cpp_extension": (changed("load", _load),),
    "torchvision.extension": (_without_operators,),
}
"""The module -> what is done to it. In brackets the version that dropped it."""


def prepare(name: str, module: ModuleType) -> None:
    """Does to a module what :data:`TABLE` says of its name."""
    for change in TABLE.get(name, ()):
        change(module)
