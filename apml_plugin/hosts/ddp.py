"""DistributedDataParallel on a machine without an accelerator."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import nn


def without_devices(init: Callable[..., None], positions: int = 2) -> Callable[..., None]:
    """An ``__init__`` of DistributedDataParallel that ignores ``device_ids`` and ``output_device``.

    positions: how many positional arguments after the module they may take.
    """

    @functools.wraps(init)
    def call(self: Any, module: nn.Module, *args: Any, **kw: Any) -> None:
        kw = {key: value for key, value in kw.items() if key not in ("device_ids", "output_device")}
        init(self, module, *[None] * len(args[:positions]), *args[positions:], **kw)

    return call
