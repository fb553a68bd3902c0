"""Two repairs of MMEngine 0.10, and the only use of its private names.

`allow_cpu_launch`: under torchrun, ``launcher='pytorch'`` selects a CUDA device before it makes the process group, and
MMEngine's wrapper passes that device's number to DistributedDataParallel. On a machine without an accelerator both are
left out, and the processes communicate over gloo. With an accelerator nothing is changed.

`admit_history`: since PyTorch 2.6 ``torch.load`` accepts only known types by default, and a Runner's checkpoint holds
the history of its log, which is none of them. So ``resume=True`` could not read what the Runner wrote. These types hold
only data and are admitted here by name; everything else is rejected as before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mmengine.dist.utils as launchers
import numpy as np
import torch
from mmengine.device import get_device
from mmengine.logging import HistoryBuffer, print_log
from mmengine.model import MMDistributedDataParallel
from mmengine.utils import digit_version

from apml_plugin.hosts.ddp import without_devices

LAUNCHER = "_init_dist_pytorch"
"""MMEngine's function for ``launcher='pytorch'``. It is private: a version may rename it."""
BACKENDS = "_vis_backends"
"""Attribute of MMEngine's Visualizer: its backends by name. Also private."""
MARK = "_apml_without_devices"
STATISTICS = ("min", "max", "current", "mean")


def allow_cpu_launch() -> None:
    """Lets a Runner with ``launcher='pytorch'`` train on CPUs, in this process. Can be called repeatedly."""
    if get_device() != "cpu":
        return
    original = getattr(launchers, LAUNCHER, None)
    if original is not None and not hasattr(original, MARK):
        setattr(launchers, LAUNCHER, _marked(_init_on_gloo))
    if not hasattr(MMDistributedDataParallel.__init__, MARK):
        MMDistributedDataParallel.__init__ = _marked(without_devices(MMDistributedDataParallel.__init__, 0))


def _init_on_gloo(backend: str = "gloo", init_backend: str = "torch", **options: Any) -> None:
    if backend == "nccl":
        print_log("no accelerator: the processes communicate over gloo instead of nccl", logger="current")
        backend = "gloo"
    torch.distributed.init_process_group(backend=backend, **options)


def _marked(function: Callable[..., None]) -> Callable[..., None]:
    setattr(function, MARK, True)
    return function


def admit_history() -> None:
    """Lets ``torch.load`` read the log history of a Runner, in this process. Can be called repeatedly."""
    if digit_version(torch.__version__) < digit_version("2.6.0"):
        return  # nothing is rejected by default
    admitted: list[Any] = [HistoryBuffer, np.ndarray, np.dtype]
    admitted += [type(np.dtype(kind)) for kind in ("float64", "float32", "int64", "int32", "bool")]
    rebuild: dict[str, Any] = {"_reconstruct": np.empty(0).__reduce__()[0], "scalar": np.float64(0).__reduce__()[0]}
    for core in ("core", "_core"):  # NumPy 2 renamed the module; a checkpoint has the name of the NumPy that wrote it
        admitted += [(function, f"numpy.{core}.multiarray.{name}") for name, function in rebuild.items()]
    known = torch.serialization.get_safe_globals()
    if getattr not in known:  # a program that has admitted all of getattr keeps it
        admitted.append((_statistic, "builtins.getattr"))
    torch.serialization.add_safe_globals([entry for entry in admitted if entry not in known])


def _statistic(owner: Any, name: str) -> Callable[..., Any]:
    """Stands for getattr in a checkpoint: gives HistoryBuffer's own statistics and nothing else."""
    if owner is not HistoryBuffer or name not in STATISTICS:
        raise ValueError(f"a checkpoint asks for {name!r} of {owner!r}; only HistoryBuffer's statistics are admitted")
    return getattr(HistoryBuffer, name)


def backends_of(visualizer: Any) -> list[Any]:
    """The backends of an MMEngine Visualizer; none where it keeps them under another name."""
    return list(getattr(visualizer, BACKENDS, {}).values())
