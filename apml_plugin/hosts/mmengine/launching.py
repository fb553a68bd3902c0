"""``launcher='pytorch'`` under torchrun on a machine without an accelerator, where MMEngine 0.10 asks for CUDA.

Its launcher chooses a CUDA device before it makes the process group, and its wrapper hands DistributedDataParallel
the number of one. Neither exists there, so both are left out and the processes talk over gloo. On a machine that has
an accelerator nothing is changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mmengine.dist.utils as launchers
import torch
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.model import MMDistributedDataParallel

from apml_plugin.ddp import without_devices

MARK = "_apml_without_devices"


def allow_cpu_launch() -> None:
    """Lets a Runner with ``launcher='pytorch'`` train on CPUs, in this process. Safe to call again."""
    if get_device() != "cpu":
        return
    if hasattr(launchers, "_init_dist_pytorch") and not hasattr(launchers._init_dist_pytorch, MARK):
        launchers._init_dist_pytorch = _marked(_on_gloo)
    if not hasattr(MMDistributedDataParallel.__init__, MARK):
        MMDistributedDataParallel.__init__ = _marked(without_devices(MMDistributedDataParallel.__init__, 0))


def _on_gloo(backend: str = "gloo", init_backend: str = "torch", **options: Any) -> None:
    if backend == "nccl":
        print_log("no accelerator: the processes talk over gloo instead of nccl", logger="current")
        backend = "gloo"
    torch.distributed.init_process_group(backend=backend, **options)


def _marked(function: Callable[..., None]) -> Callable[..., None]:
    setattr(function, MARK, True)
    return function
