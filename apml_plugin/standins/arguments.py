"""Checks of the clouds that a stand-in is given, and results written into tensors that the caller made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from apml_plugin.errors import LossValueError


def check_clouds(caller: str, **clouds: Tensor) -> None:
    """Raises LossValueError for a cloud that is not (B, n, 3)."""
    for name, cloud in clouds.items():
        if cloud.dim() != 3 or cloud.shape[2] != 3:
            raise LossValueError(f"{caller}: {name} must be (B, n, 3), got {tuple(cloud.shape)}")


def write(buffer: Tensor, result: Tensor) -> int:
    """Copies ``result`` into ``buffer``, which must have its shape; dtype and device may differ. Returns 1.

    Raises:
        LossValueError: the shapes differ. Nothing is broadcast into a buffer that is too large.
    """
    if buffer.shape != result.shape:
        raise LossValueError(f"a buffer for {tuple(result.shape)} results has shape {tuple(buffer.shape)}")
    buffer.copy_(result)
    return 1


def into(last: int, sizes: int, function: Callable[..., Any]) -> Callable[..., int]:
    """A function that drops its first ``sizes`` arguments and writes the results of ``function`` into the ``last``."""

    def wrapper(*args: Any) -> int:
        with torch.no_grad():
            results = function(*args[sizes:])
            for buffer, result in zip(args[-last:], results if last > 1 else [results], strict=True):
                write(buffer, result)
        return 1

    return wrapper
