"""Checkpoints as hosts write them, made with classes that are gone afterwards, and files that ask for other things."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import sys
import types
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

MAGIC = 0x1950A86A20F9469CFC6C
LAYOUTS = ("base_model", "model", "grnet", "net_G", "net_state_dict", "model_state_dict", "state_dict")
HOST = {
    "utils": {},
    "utils.metrics": {"Metrics": object},
    "extensions": {},
    "extensions.chamfer_dist": {"ChamferDistanceL1": torch.nn.Module, "ChamferDistanceL2": torch.nn.Module},
    "extensions.emd": {},
    "extensions.emd.emd_module": {"emdModule": torch.nn.Module},
}


@contextlib.contextmanager
def host_classes(modules_too: bool = True) -> Iterator[Any]:
    """`Metrics(values)` of a host whose modules are in sys.modules inside the block only.

    modules_too: its distances are modules of PyTorch; else plain objects.
    """
    modules = {name: types.ModuleType(name) for name in HOST}
    for module, classes in HOST.items():
        for name, base in classes.items():
            setattr(modules[module], name, type(name, (base if modules_too else object,), {"__module__": module}))
    distances = modules["extensions.chamfer_dist"]

    def metrics(values: list[Any]) -> Any:
        made = modules["utils.metrics"].Metrics()
        made._items = [
            {"name": "F-Score", "enabled": True, "eval_func": "cls._get_f_score", "init_value": 0},
            {"name": "CDL1", "eval_object": distances.ChamferDistanceL1(), "init_value": 32767},
            {"name": "CDL2", "eval_object": distances.ChamferDistanceL2(), "init_value": 32767},
            {"name": "EMDistance", "eval_object": modules["extensions.emd.emd_module"].emdModule()},
        ]
        made._values = values
        made.metric_name = "CDL1"
        return made

    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield metrics
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def weights(prefix: str = "") -> dict[str, torch.Tensor]:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    return {prefix + key: value for key, value in model.state_dict().items()}


def old_file(path: Path, zipped: bool = True, values: list[Any] | None = None, **more: Any) -> Path:
    """A PoinTr checkpoint of 2021: both metrics are objects of the host."""
    with host_classes(modules_too=zipped) as metrics, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # legacy files hold sources, which these classes have not
        saved = {
            "base_model": weights("module."),
            "optimizer": {"state": {0: {"step": 3}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
            "epoch": 7,
            "metrics": metrics(values or [0.5, 10.0, 0.25, 0.0]),
            "best_metrics": metrics([0.75, 9.0, 0.2, 0.0]),
            **more,
        }
        torch.save(saved, path, _use_new_zipfile_serialization=zipped)
    assert "utils.metrics" not in sys.modules
    return path


def zipped(path: Path, data: bytes, **entries: bytes) -> Path:
    """A file as torch.save lays it out, around any pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {"data.pkl": data, "version": b"3\n", "byteorder": b"little", **entries}.items():
            archive.writestr(f"archive/{name}", content)
    return path


def legacy(path: Path, data: bytes) -> Path:
    """The same as before PyTorch 1.6."""
    stream = io.BytesIO()
    for head in (MAGIC, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}):
        pickle.dump(head, stream, protocol=2)
    path.write_bytes(stream.getvalue() + data + pickle.dumps([], protocol=2))
    return path


class Calls:
    """Pickles as a call of ``function``."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


def text(value: str) -> bytes:
    return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()


def call(module: str, name: str, *args: bytes) -> bytes:
    """Instructions: the global called with values that are on the stack."""
    return f"c{module}\n{name}\n".encode() + b"(" + b"".join(args) + b"tR"


def beside_weights(instructions: bytes) -> bytes:
    """A pickle of {"model": {}, "x": ...}."""
    return b"\x80\x02}(" + text("model") + b"}" + text("x") + instructions + b"u."


def attacks(touched: Path) -> dict[str, bytes]:
    """Pickles that would make the file ``touched``, or get at something that could; name -> bytes."""
    command, code = f"touch {touched}", f"open({str(touched)!r}, 'w').close()"
    shell = b"cutils.metrics\nMetrics\n)\x81"
    nested = io.BytesIO()
    torch.save({"x": Calls(os.system, command)}, nested)
    inner = pickle.dumps(Calls(os.system, command), protocol=2)
    as_bytes = call("_codecs", "encode", text(inner.decode("latin-1")), text("latin1"))
    dtype = call("numpy", "dtype", text("O8"))
    made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
    return {
        "os.system": pickle.dumps({"model": Calls(os.system, command)}, protocol=2),
        "newer protocol": pickle.dumps({"model": Calls(os.system, command)}, protocol=4),
        "newest protocol": pickle.dumps({"model": Calls(os.system, command)}, protocol=5),
        "text protocol": pickle.dumps({"model": Calls(os.system, command)}, protocol=0),
        "exec": pickle.dumps({"model": Calls(exec, code)}, protocol=2),
        "eval": beside_weights(call("__builtin__", "eval", text(code))),
        "nt": beside_weights(call("nt", "system", text(command))),
        "posix": beside_weights(call("posix", "system", text(command))),
        "subprocess": beside_weights(call("subprocess", "getoutput", text(command))),
        "getattr": beside_weights(call("builtins", "getattr", b"cutils.metrics\nMetrics\n", text("__new__"))),
        "getattr of torch": beside_weights(call("builtins", "getattr", b"ctorch\nTensor\n", text("__subclasses__"))),
        "dotted": beside_weights(call("utils.metrics", "Metrics.__new__.__globals__")),
        "operator": beside_weights(call("operator", "attrgetter", text("system"))),
        "partial": beside_weights(call("functools", "partial", b"cposix\nsystem\n", text(command))),
        "import": beside_weights(b"cmade_to_be_imported\nthing\n"),
        "inst": beside_weights(b"(" + text(command) + b"iposix\nsystem\n"),
        "nested pickle": beside_weights(call("pickle", "loads", as_bytes)),
        "nested checkpoint": beside_weights(call("torch.storage", "_load_from_bytes", as_bytes)),
        "torch.load": beside_weights(call("torch.serialization", "load", text("other.pth"))),
        "torch.hub": beside_weights(call("torch.hub", "load_state_dict_from_url", text("http://localhost:9"))),
        "torch.jit": beside_weights(call("torch.jit", "load", text("other.pt"))),
        "torch compiler": beside_weights(call("torch.utils.cpp_extension", "load_inline", text("x"), text(code))),
        "torch script": beside_weights(call("torch._utils", "_import_dotted_name", text("os.system"))),
        "numpy": beside_weights(call("numpy.testing", "runstring", text(code), b"}")),
        "numpy load": beside_weights(call("numpy", "load", text("x.npy"))),
        "object dtype": beside_weights(
            made + b"(K\x01K\x01\x85" + dtype + b"\x89]" + pickle.dumps(Calls(os.system, command), 2)[2:-1] + b"atb"
        ),
        "object array": beside_weights(made + b"(K\x01K\x01\x85" + dtype + b"\x89]K\x01atb"),
        "object scalar": beside_weights(call("numpy.core.multiarray", "scalar", dtype, b"K\x01")),
        "called shell": beside_weights(shell + b"(" + text(command) + b"tR"),
        "item of a shell": beside_weights(shell + text("a") + text("b") + b"s"),
        "items of a shell": beside_weights(shell + b"(" + text("a") + text("b") + b"e"),
        "built class": beside_weights(b"cutils.metrics\nMetrics\n}" + text("__setstate__") + b"cposix\nsystem\nsb"),
        "built function": beside_weights(b"ctorch._utils\n_rebuild_tensor_v2\n}" + text("__doc__") + text("x") + b"sb"),
        "built class of torch": beside_weights(b"ctorch\nTensor\n}" + text("x") + text("y") + b"sb"),
        "container": beside_weights(
            call("apml_plugin.checkpoints.placeholders", "dtype", text("module"), b"ctorch\nTensor\n")
        ),
        "container of a call": beside_weights(
            call("apml_plugin.checkpoints.placeholders", "dtype", text("module"), b"cposix\nsystem\n")
        ),
        "persistent text": beside_weights(text("whole") + b"Q"),
        "persistent module": beside_weights(
            b"(" + text("module") + b"cposix\nsystem\n" + text("a.py") + text(code) + b"tQ"
        ),
        "not a storage": beside_weights(b"(" + text("storage") + b"cposix\nsystem\n" + text("0") * 2 + b"K\x01tQ"),
    }
