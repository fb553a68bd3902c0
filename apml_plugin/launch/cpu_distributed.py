"""CPU mode for distributed runs: gloo instead of nccl, and no device ids."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn


def install() -> None:
    """Wraps process groups and DistributedDataParallel in this interpreter."""
    ddp = nn.parallel.DistributedDataParallel
    ddp.__init__ = _without_devices(ddp.__init__)  # type: ignore[method-assign]
    if not torch.distributed.is_available():
        return
    from torch.distributed import distributed_c10d

    for name, wrap in (("init_process_group", _on_gloo), ("new_group", _on_gloo), ("barrier", _everywhere)):
        wrapped = wrap(getattr(distributed_c10d, name))
        setattr(distributed_c10d, name, wrapped)
        setattr(torch.distributed, name, wrapped)


def _on_gloo(function: Callable[..., Any]) -> Callable[..., Any]:
    """``backend`` naming nccl becomes gloo, wherever it stands; ``device_id`` is dropped."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        args = tuple(_gloo(value) if isinstance(value, str) else value for value in args)
        if isinstance(kwargs.get("backend"), str):
            kwargs["backend"] = _gloo(kwargs["backend"])
        kwargs.pop("device_id", None)
        return function(*args, **kwargs)

    return call


def _gloo(backend: str) -> str:
    return "gloo" if "nccl" in backend.lower() and "://" not in backend else backend


def _everywhere(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        kwargs.pop("device_ids", None)
        return function(*args, **kwargs)

    return call


def _without_devices(init: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(init)
    def call(self: Any, module: nn.Module, device_ids: Any = None, output_device: Any = None, *args: Any, **kw: Any):
        init(self, module, None, None, *args, **kw)

    return call
