"""CPU mode: CUDA calls of a host that was written for GPUs alone go to the CPU.

A few functions in which a device is named are wrapped. A global ``TorchFunctionMode`` would be shorter, but it is
thread-local (DataParallel and autograd threads would not see it) and slows every operation down, while a wrapper
looks at one argument of one call. No arithmetic is touched, so numbers are those of plain CPU code.
``torch.cuda.is_available()`` stays False, so that PyTorch and hosts use no GPU code, while ``device_count()`` is 1:
hosts divide by it and make one gradient per device. What only a GPU can do (streams, graphs, kernels) still fails.
Process groups use gloo in place of nccl, and DistributedDataParallel gets no device ids.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from apml_plugin import _torch_private
from apml_plugin.hosts.ddp import without_devices

# fmt: off
FACTORIES = (
    "arange", "as_tensor", "asarray", "bartlett_window", "blackman_window", "empty", "empty_like",
    "empty_permuted", "empty_strided", "eye", "full", "full_like", "hamming_window", "hann_window",
    "kaiser_window", "linspace", "logspace", "normal", "ones", "ones_like", "rand", "rand_like", "randint",
    "randint_like", "randn", "randn_like", "randperm", "range", "scalar_tensor", "sparse_coo_tensor", "tensor",
    "tril_indices", "triu_indices", "zeros", "zeros_like",
)
# fmt: on

METHODS = ("new_empty", "new_full", "new_ones", "new_tensor", "new_zeros")

_MARK = "_apml_cpu_mode"


def install() -> None:
    """Installs the wrappers in this interpreter, once."""
    if getattr(torch, _MARK, False):
        return
    setattr(torch, _MARK, True)
    _factories()
    _moves()
    _loading()
    _cuda_module()
    _distributed()


def on_cpu(device: Any) -> Any:
    """``device`` with every way of naming a CUDA device replaced by "cpu"; anything else as it is."""
    if isinstance(device, bool):
        return device
    if isinstance(device, int):
        return "cpu"
    if isinstance(device, str) and device.partition(":")[0] == "cuda":
        return "cpu"
    if isinstance(device, torch.device) and device.type == "cuda":
        return torch.device("cpu")
    return device


def _factories() -> None:
    context = _torch_private.device_context()  # first: it recognises the factories as they are now
    context.__init__ = _translated(context.__init__, at=1)
    for name in FACTORIES:
        if hasattr(torch, name):
            original = getattr(torch, name)
            wrapper = _translated(original)
            setattr(torch, name, wrapper)
            _torch_private.script_as(wrapper, original)
    for name in METHODS:
        setattr(torch.Tensor, name, _translated(getattr(torch.Tensor, name)))
    default = _translated(torch.set_default_tensor_type, _cpu_tensor_type, 0, ("t",))
    setattr(torch, "set_default_tensor_type", default)  # noqa: B010


def _moves() -> None:
    tensor: Any = torch.Tensor
    module: Any = torch.nn.Module
    tensor.type = _translated(tensor.type, _cpu_tensor_type, 1, ("dtype",))
    tensor.pin_memory = _identity(tensor.pin_memory)
    for kind in (tensor, module):
        kind.to, kind.cuda = _translated(kind.to, at=1), _identity(kind.cuda)


def _loading() -> None:
    load = torch.load

    @functools.wraps(load)
    def load_on_cpu(f: Any, map_location: Any = None, *args: Any, **kwargs: Any) -> Any:
        # A function decides for itself; any other location, None included, can only mean the CPU here.
        return load(f, map_location if callable(map_location) else "cpu", *args, **kwargs)

    torch.load = load_on_cpu


def _cuda_module() -> None:
    replace: dict[str, Callable[..., Any]] = {
        "is_available": lambda: False,
        "device_count": lambda: 1,
        "set_device": lambda device: None,
        "current_device": lambda: 0,
        "device": _NoDevice,
        "device_of": _NoDevice,
        "get_device_name": lambda device=None: "CPU",
        "get_device_capability": lambda device=None: (0, 0),
        "get_device_properties": lambda device=None: _Properties(),
        "mem_get_info": lambda device=None: (0, 0),
        "get_rng_state": lambda device=None: torch.empty(0, dtype=torch.uint8),
        "get_rng_state_all": lambda: [torch.empty(0, dtype=torch.uint8)],
    }
    # Nothing to wait for, to empty or to seed: torch.manual_seed is what seeds the CPU, and hosts call it too.
    nothing = "synchronize init empty_cache ipc_collect reset_peak_memory_stats set_rng_state set_rng_state_all "
    nothing += "seed seed_all manual_seed manual_seed_all set_per_process_memory_fraction"
    for name in nothing.split():
        replace[name] = lambda *args, **kwargs: None
    for name, value in replace.items():
        setattr(torch.cuda, name, value)
    for kind in ("Half", "Float", "Double", "BFloat16", "Char", "Byte", "Short", "Int", "Long", "Bool"):
        setattr(torch.cuda, f"{kind}Tensor", getattr(torch, f"{kind}Tensor"))


def _distributed() -> None:
    ddp = torch.nn.parallel.DistributedDataParallel
    ddp.__init__ = without_devices(ddp.__init__)  # type: ignore[method-assign]
    if not torch.distributed.is_available():
        return
    from torch.distributed import distributed_c10d

    for name in ("init_process_group", "new_group", "barrier"):
        wrapped = _on_gloo(getattr(distributed_c10d, name))
        setattr(distributed_c10d, name, wrapped)
        setattr(torch.distributed, name, wrapped)


def _on_gloo(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function in whose arguments a backend that names nccl becomes gloo, and devices are left out."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        kwargs = {key: _gloo(value) for key, value in kwargs.items() if key not in ("device_id", "device_ids")}
        return function(*map(_gloo, args), **kwargs)

    return call


def _gloo(value: Any) -> Any:
    return "gloo" if isinstance(value, str) and "nccl" in value.lower() and "://" not in value else value


class _Properties(NamedTuple):
    """What hosts print of a device."""

    name: str = "CPU"
    major: int = 0
    minor: int = 0
    total_memory: int = 0
    multi_processor_count: int = 0


class _NoDevice(contextlib.nullcontext[None]):
    """``with torch.cuda.device(0):`` selects nothing."""

    def __init__(self, device: Any = None) -> None:
        super().__init__()
        self.idx = -1


def _cpu_tensor_type(kind: Any) -> Any:
    return kind.replace("torch.cuda.", "torch.") if isinstance(kind, str) else kind


def _translated(
    function: Callable[..., Any],
    convert: Callable[[Any], Any] = on_cpu,
    at: int | None = None,
    names: tuple[str, ...] = ("device",),
) -> Callable[..., Any]:
    """A function whose argument at a position, and those of some names, are converted first."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if at is not None and len(args) > at:
            args = (*args[:at], convert(args[at]), *args[at + 1 :])
        for name in names:
            if name in kwargs:
                kwargs[name] = convert(kwargs[name])
        return function(*args, **kwargs)

    return call


def _identity(function: Callable[..., Any]) -> Callable[..., Any]:
    return functools.wraps(function)(lambda self, *args, **kwargs: self)
