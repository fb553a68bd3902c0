"""CPU mode for distributed runs: gloo instead of nccl, and no device ids."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from apml_plugin.ddp import without_devices


def install() -> None:
    """Wraps process groups and DistributedDataParallel in this interpreter."""
    ddp = nn.parallel.DistributedDataParallel
    ddp.__init__ = without_devices(ddp.__init__)  # type: ignore[method-assign]
    if not torch.distributed.is_available():
        return
    from torch.distributed import distributed_c10d

    for name in ("init_process_group", "new_group", "barrier"):
        wrapped = _on_gloo(getattr(distributed_c10d, name))
        setattr(distributed_c10d, name, wrapped)
        setattr(torch.distributed, name, wrapped)


def _on_gloo(function: Callable[..., Any]) -> Callable[..., Any]:
    """A backend naming nccl becomes gloo, wherever it stands; devices are dropped."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        kwargs = {key: _gloo(value) for key, value in kwargs.items() if key not in ("device_id", "device_ids")}
        return function(*map(_gloo, args), **kwargs)

    return call


def _gloo(value: Any) -> Any:
    return "gloo" if isinstance(value, str) and "nccl" in value.lower() and "://" not in value else value
