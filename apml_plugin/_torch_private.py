"""The private API of PyTorch that this package calls. Nothing else in it may use a name that PyTorch does not document.

``tests/test_private_api.py`` calls each function here, so that a new PyTorch shows at once what it has changed.
"""

from __future__ import annotations

from typing import IO, Any

import torch
from torch import Tensor


def has_kernel(op: str, device: str) -> bool:
    """Whether an operator (``"apml::match"``) has a kernel for a type of device (``"cpu"``, ``"cuda"``)."""
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(op, device.upper()))


def assert_in_graph(condition: Tensor, message: str) -> None:
    """An assertion on a 0-dim bool tensor that torch.compile keeps in the graph. On CUDA it does not synchronise."""
    torch._assert_async(condition, message)


def saved_by(node: torch.autograd.graph.Node) -> dict[str, Any]:
    """What a node of the autograd graph saved for its backward pass, such as sizes and dimensions, by name."""
    return {name: getattr(node, name) for name in dir(node) if name.startswith("_saved_")}


def version_of(tensor: Tensor) -> int:
    """How many times a tensor's memory was written in place."""
    return int(tensor._version)


def archive(file: IO[bytes]) -> Any:
    """PyTorch's reader of its zip files, with ``get_all_records()`` and ``get_record(name)``."""
    return torch._C.PyTorchFileReader(file)


def device_context() -> type[Any]:
    """The class of ``with torch.device(...)``. The functions that it gives a device are from now on those of today.

    It recognises them by their Python objects, in a set made on first use: the call makes it now, so that functions
    that are wrapped afterwards are still recognised.
    """
    from torch.utils import _device

    _device._device_constructors()
    return _device.DeviceContext


def script_as(wrapper: Any, original: Any) -> None:
    """Makes TorchScript, which recognises operators by their Python objects, compile ``wrapper`` to the operator."""
    from torch.jit import _builtins

    operator = _builtins._find_builtin(original)
    if operator is not None:
        _builtins._register_builtin(wrapper, operator)
