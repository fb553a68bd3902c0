"""DistributedDataParallel on a machine without an accelerator."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import nn


def without_devices(init: Callable[..., None], positions: int = 2) -> Callable[..., None]:
    """The ``__init__`` of a DistributedDataParallel without devices, which may stand in so many places."""

    @functools.wraps(init)
    def call(self: Any, module: nn.Module, *args: Any, **kw: Any) -> None:
        kw = {key: value for key, value in kw.items() if key not in ("device_ids", "output_device")}
        init(self, module, *[None] * len(args[:positions]), *args[positions:], **kw)

    return call
