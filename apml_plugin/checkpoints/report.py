"""The output of `apml checkpoint inspect`, as plain values for JSON and as text."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ..arguments import counted
from ..files.opening import printable, size_of
from . import container
from .layouts import Checkpoint, without_prefix
from .reading import Read

FORMATS = {
    container.ZIP: "torch.save (zip)",
    container.LEGACY: "torch.save as before PyTorch 1.6",
    container.SAFETENSORS: "safetensors",
}
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_LONGEST, _MOST = 200, 50


def report(path: str | os.PathLike[str], read: Read, found: Checkpoint) -> dict[str, Any]:
    """A dict of plain values. shapes: key without `module.` -> [shape, dtype], in the file's order."""
    weights = without_prefix(found.weights)
    learned = {key: value for key, value in weights.items() if key.rpartition(".")[2] not in _STATISTICS}
    inner = [key for key in weights if "module." in key]
    return {
        "file": str(path),
        "bytes": os.path.getsize(path),
        "format": FORMATS[read.kind],
        "loads_by_default": not read.kept,
        "kept_as_plain_values": list(read.kept),
        "layout": found.layout,
        "module_prefix": f"{found.prefixed} of {len(weights)} keys" if found.prefixed else "",
        "module_inside": inner,
        "epoch": plain(found.epoch),
        "metrics": plain(found.metrics),
        "best_metrics": plain(found.best),
        "optimizer": found.optimizer is not None,
        "other_keys": list(found.others)[:_MOST],
        "not_tensors": list(found.left_out)[:_MOST],
        "tensors": len(weights),
        "parameters": sum(tensor.numel() for tensor in learned.values()),
        "statistics": sum(tensor.numel() for tensor in weights.values()) - sum(t.numel() for t in learned.values()),
        "dtypes": dict(Counter(str(tensor.dtype).removeprefix("torch.") for tensor in weights.values())),
        "not_finite": [key for key, tensor in learned.items() if not _finite(tensor)][:_MOST],
        "shapes": {
            key: [list(tensor.shape), str(tensor.dtype).removeprefix("torch.")] for key, tensor in weights.items()
        },
    }


def plain(value: Any, depth: int = 2) -> Any:
    """Numbers, short texts and small collections of them as they are; a description of anything else."""
    import numpy as np
    import torch

    if isinstance(value, torch.Tensor | np.generic | np.ndarray):
        count = value.numel() if isinstance(value, torch.Tensor) else value.size
        if count != 1:
            return f"{type(value).__name__} of shape {tuple(value.shape)}"
        value = value.item()
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return value if len(value) <= _LONGEST else value[:_LONGEST] + "..."
    if isinstance(value, Mapping) and depth and len(value) <= _MOST:
        items = dict.items(value) if isinstance(value, dict) else value.items()  # a file can hide `items`
        return {str(key)[:_LONGEST]: plain(item, depth - 1) for key, item in items}
    if isinstance(value, list | tuple) and depth and len(value) <= _MOST:
        return [plain(item, depth - 1) for item in value]
    return f"a {type(value).__name__}"


def lines(facts: Mapping[str, Any], all_keys: bool = False) -> list[str]:
    """The report as lines of text."""
    rows = [
        ("file", f"{facts['file']} ({size_of(facts['bytes'])}, {facts['format']})"),
        ("read", _how(facts)),
        ("layout", _layout(facts)),
        ("epoch", _shown(facts["epoch"])),
        ("metrics", _shown(facts["metrics"])),
        ("best", _shown(facts["best_metrics"])),
        ("optimizer", "yes" if facts["optimizer"] else "no"),
        ("also holds", ", ".join(facts["other_keys"]) or "nothing"),
        ("weights", _weights(facts)),
    ]
    if facts["not_tensors"]:
        rows.append(("no tensors", ", ".join(facts["not_tensors"])))
    if facts["not_finite"]:
        rows.append(("warning", f"NaN or infinity in {', '.join(facts['not_finite'])}"))
    if facts["module_inside"]:
        text = f"`module.` inside {facts['module_inside'][0]}: PoinTr's builder takes it out of the middle of keys too"
        rows.append(("warning", text))
    result = [f"{label + ':':<12} {text}" for label, text in rows]
    shapes = list(facts["shapes"].items())
    shown = shapes if all_keys else shapes[:12]
    result += [f"  {key}  {'x'.join(map(str, shape)) or 'a number'} {dtype}" for key, (shape, dtype) in shown]
    if len(shown) < len(shapes):
        result.append(f"  and {len(shapes) - len(shown)} more (--keys shows all)")
    return [printable(line) for line in result]


def _how(facts: Mapping[str, Any]) -> str:
    if facts["loads_by_default"]:
        return "by PyTorch's weights-only default"
    names = ", ".join(facts["kept_as_plain_values"])
    return f"rejected by PyTorch's default; read safely with these as plain values: {names}"


def _layout(facts: Mapping[str, Any]) -> str:
    name = "a state dict and nothing else (raw)" if facts["layout"] == "raw" else f"weights under {facts['layout']!r}"
    return f"{name}, `module.` before {facts['module_prefix']}" if facts["module_prefix"] else name


def _weights(facts: Mapping[str, Any]) -> str:
    kinds = ", ".join(f"{count} {dtype}" for dtype, count in facts["dtypes"].items())
    text = f"{counted(facts['tensors'], 'tensor')} ({kinds}), {counted(facts['parameters'], 'parameter')}"
    return f"{text}, {facts['statistics']:,} running statistics" if facts["statistics"] else text


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(item)}" for key, item in value.items()) or "empty"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _finite(tensor: Any) -> bool:
    import torch

    if tensor.is_meta or tensor.layout != torch.strided or not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    if tensor.numel() * tensor.element_size() > max(tensor.untyped_storage().nbytes(), 1):
        return True  # a view that repeats its numbers can be too large to check
    return bool(torch.isfinite(tensor).all())
