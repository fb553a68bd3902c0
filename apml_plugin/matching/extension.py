"""The compiled extension ``apml_plugin._C``: what setup.py built, loading it, and what PyTorch must know of its ops.

The schemas of the ops ``torch.ops.apml.*`` are in cuda_ext/schema.h. They take float32 and float64 clouds with one to
three coordinates, on the CPU and, where built for it, on CUDA. What was built is recorded beside the package, in
``_build.json``, and read without loading the library: one made for another PyTorch may crash when it is loaded.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from apml_plugin._torch_private import has_kernel

DIMENSIONS = 3
"""The most coordinates the ops take."""

PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Record:
    """What setup.py wrote: for which PyTorch and Python the ops are, for which devices, and why not for the others."""

    ops: tuple[str, ...]
    """The devices with ops: "cpu", or "cpu" and "cuda"."""
    missing: dict[str, str]
    """For each other device, why it has none and what would change that."""
    torch: str | None
    python: str
    architectures: str | None
    """Of the CUDA ops, as in TORCH_CUDA_ARCH_LIST."""


def read_record(folder: Path = PACKAGE) -> Record | None:
    """The record, or None where the package was not installed by its setup.py."""
    try:
        written = json.loads((folder / "_build.json").read_text())
        return Record(tuple(written.pop("ops")), **written)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def unusable(record: Record | None) -> str | None:
    """Why there are no compiled ops for this PyTorch and this Python, or None."""
    if record is None:
        return "nothing was compiled here yet"
    if not record.ops:
        return record.missing.get("cpu", "none were built")
    here = f"PyTorch {torch.__version__} and {sys.implementation.cache_tag}"
    built = f"PyTorch {record.torch} and {record.python}"
    return None if built == here else f"they were built for {built}, and this is {here}"


def rebuild_command() -> str:
    """The command that compiles the ops again."""
    # The setting that forbade the ops the last time would forbid them again.
    setting = "APML_BUILD=auto " if os.environ.get("APML_BUILD") == "off" else ""
    if (PACKAGE.parent / "setup.py").exists():
        return f"{setting}pip install --no-build-isolation -e {PACKAGE.parent}"
    return f"{setting}./install.sh in a clone of the repository"


@functools.cache
def loading_problem() -> str | None:
    """Loads the ops, once. Why they cannot be used, or None."""
    why = unusable(read_record())
    if why is None:
        try:
            import apml_plugin._C  # noqa: F401 - loading registers the ops
        except ImportError as error:
            why = f"they do not load ({error})"
        else:
            _register()
            return None
    return f"{why} (`{rebuild_command()}` builds them)"


def missing(device: str) -> str | None:
    """Why there are no compiled ops for a type of device ("cpu", "cuda", "mps"), or None."""
    if why := loading_problem():
        return f"there are no compiled ops: {why}"
    return _missing_kernels(device)


def problem(device: str, dimensions: int) -> str | None:
    """Why the ops cannot take clouds on a type of device with so many coordinates, or None."""
    if dimensions > DIMENSIONS:
        return f"the compiled ops take up to {DIMENSIONS} coordinates, and these clouds have {dimensions}"
    return missing(device)


def offers(op: str, device: str, dimensions: int) -> bool:
    """Whether there is this op for clouds on a type of device with so many coordinates: some are for the CPU alone."""
    return problem(device, dimensions) is None and has_kernel(f"apml::{op}", device)


@functools.cache  # called by every loss, and reads a file
def _missing_kernels(device: str) -> str | None:
    if device in ("cpu", "cuda") and has_kernel("apml::match", device):
        return None
    record = read_record()
    why = record.missing.get(device) if record else None
    return f"the compiled ops have no part for {device} tensors: {why or 'only cpu and cuda can have one'}"


def _register() -> None:
    """Registers shapes for tracing, and gradients: both were computed in the forward pass."""

    @torch.library.register_fake("apml::match")
    def _(pred: Tensor, gt: Tensor, *args: Any) -> tuple[Tensor, ...]:
        gradients = args[7]
        return (*_like_losses(pred, gt, gradients), pred.new_empty(pred.shape[0], dtype=torch.float64))

    @torch.library.register_fake("apml::chamfer")
    def _(pred: Tensor, gt: Tensor, *args: Any) -> tuple[Tensor, ...]:
        return _like_losses(pred, gt, args[3])

    @torch.library.register_fake("apml::fast_emd")
    def _(pred: Tensor, gt: Tensor, *args: Any) -> tuple[Tensor, ...]:
        pairs = pred.new_empty(pred.shape[0], max(pred.shape[1], gt.shape[1]), 2, dtype=torch.int64)
        return (*_like_losses(pred, gt, args[-1]), pairs)

    @torch.library.register_fake("apml::nearest")
    def _(queries: Tensor, points: Tensor, *lengths: Any) -> tuple[Tensor, Tensor]:
        return queries.new_empty(queries.shape[:2]), queries.new_empty(queries.shape[:2], dtype=torch.int64)

    @torch.library.register_fake("apml::plan")
    def _(pred: Tensor, gt: Tensor, *args: Any) -> tuple[Tensor, ...]:
        entries = torch.library.get_ctx().new_dynamic_size()
        wide = [cloud.new_empty(cloud.shape[:2], dtype=torch.float64) for cloud in (pred, gt, pred, gt)]
        indices = pred.new_empty(3, entries, dtype=torch.int64)
        return indices, pred.new_empty(entries), pred.new_empty(pred.shape[0], dtype=torch.float64), *wide

    for op in ("apml::match", "apml::chamfer", "apml::fast_emd"):
        torch.library.register_autograd(op, _backward, setup_context=_keep_gradients)


def _like_losses(pred: Tensor, gt: Tensor, gradients: bool) -> tuple[Tensor, Tensor, Tensor]:
    def gradient(cloud: Tensor) -> Tensor:
        return cloud.new_empty(cloud.shape[0], cloud.shape[1] if gradients else 0, cloud.shape[2])

    return pred.new_empty(pred.shape[0]), gradient(pred), gradient(gt)


def _keep_gradients(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, pred_grad, gt_grad, *rest = output
    ctx.arguments = len(inputs)
    ctx.save_for_backward(pred_grad, gt_grad)
    ctx.mark_non_differentiable(pred_grad, gt_grad, *rest)


def _backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    pred_grad, gt_grad = ctx.saved_tensors
    if pred_grad.shape[1] == 0 and gt_grad.shape[1] == 0:
        raise RuntimeError("torch.ops.apml: a backward pass needs gradients=True in the forward pass")
    scale = grad[:, None, None]
    none = (None,) * (ctx.arguments - 2)
    return (
        pred_grad * scale if ctx.needs_input_grad[0] else None,
        gt_grad * scale if ctx.needs_input_grad[1] else None,
        *none,
    )
