"""The private API of PyTorch that this package calls. Nothing else in it may use a name that PyTorch does not document.

``tests/test_private_api.py`` calls each function here, so that a new PyTorch shows at once what it has changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import IO, Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


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


def is_transformed(tensor: Tensor) -> bool:
    """Whether a transform of ``torch.func`` (grad, jvp, vmap, ...) that is at work has wrapped the tensor."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(tensor))


def is_vmapped(tensor: Tensor) -> bool:
    """Whether ``torch.func.vmap`` goes through the tensor's elements, so that it has no values of its own."""
    while is_transformed(tensor):
        if torch._C._functorch.is_batchedtensor(tensor):
            return True
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return False


def on_values(function: Callable[..., T], *tensors: Tensor) -> T:
    """``function(*tensors)`` on the values alone: without derivatives, and outside of every ``torch.func`` transform.

    Only there can NumPy and C++ read a tensor. None of them may be vmapped.
    """
    with torch.no_grad():
        if torch._C._functorch.peek_interpreter_stack() is None:
            return function(*(tensor.detach() for tensor in tensors))
        from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

        with temporarily_clear_interpreter_stack():
            return function(*(_unwrapped(tensor).detach() for tensor in tensors))


def _unwrapped(tensor: Tensor) -> Tensor:
    while is_transformed(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor


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
