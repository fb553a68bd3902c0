"""`torch.load` under `apml run`: old files load, and no code in any file is run."""

from __future__ import annotations

import functools
import os
from pickle import UnpicklingError
from typing import Any

import torch

from apml_plugin.announce import tell
from apml_plugin.errors import CheckpointError

REMEDY = (
    "If you trust its author, save its state dict alone with torch.save, or start with `apml run "
    "--trust-checkpoints`, which restores PyTorch's own torch.load (since 2.6, PyTorch also needs "
    "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 to run code of a file)"
)
_MARK = "_apml_loading"


def install() -> None:
    """Wraps `torch.load` in this interpreter, once."""
    if getattr(torch, _MARK, False):
        return
    setattr(torch, _MARK, True)
    load = torch.load

    @functools.wraps(load)
    def load_safely(
        f: Any,
        map_location: Any = None,
        pickle_module: Any = None,
        *,
        weights_only: bool | None = None,
        **options: Any,
    ) -> Any:
        # Always weights only, whatever the host asks for. Our reader, which runs no code either, reads the rest.
        where = _position(f)
        if where is None:
            return load(f, map_location, weights_only=True, **options)
        _reject_programs(f, where)
        try:
            return load(f, map_location, weights_only=True, **options)
        except UnpicklingError as error:
            return _again(load, f, where, map_location, options, error)

    torch.load = load_safely
    torch.serialization.load = load_safely


def _again(load: Any, f: Any, where: int, map_location: Any, options: dict[str, Any], error: Exception) -> Any:
    """Reads a file that PyTorch rejected again, with placeholders for known classes of hosts."""
    from apml_plugin.checkpoints import container
    from apml_plugin.checkpoints.reading import read_with_placeholders
    from apml_plugin.files.opening import printable

    name = os.fspath(f) if _is_path(f) else getattr(f, "name", "a checkpoint in memory")
    options = {key: value for key, value in options.items() if key == "encoding"}
    file = open(f, "rb") if _is_path(f) else f  # noqa: SIM115 (closed below)
    try:
        file.seek(where)
        try:
            kind = container.kind_of(file)
            read = read_with_placeholders(file, kind, str(error), load, REMEDY, map_location=map_location, **options)
        except CheckpointError as problem:
            raise CheckpointError(printable(f"{name}: {problem}")) from None
    finally:
        if file is not f:
            file.close()
    tell(
        "checkpoint", f"{name}: an old file, read without running code; plain values in place of {', '.join(read.kept)}"
    )
    return read.value


def _reject_programs(f: Any, where: int) -> None:
    """Rejects TorchScript and tar files: PyTorch before 2.6 runs them even if asked for weights only."""
    from apml_plugin.checkpoints import container

    file = open(f, "rb") if _is_path(f) else f  # noqa: SIM115 (closed below)
    try:
        head = file.read(4)
        file.seek(where)
        if head[:1] != b"\x80" and (head != b"PK\x03\x04" or _early()):
            container.reject_programs(file)
    except CheckpointError as error:
        name = os.fspath(f) if _is_path(f) else getattr(f, "name", "a checkpoint in memory")
        raise CheckpointError(f"{name}: {error}. {REMEDY}") from None
    finally:
        file.seek(where)
        if file is not f:
            file.close()


def _early() -> bool:
    """Whether this PyTorch loads TorchScript archives even if asked for weights only."""
    return tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 6)


def _position(f: Any) -> int | None:
    """Where in ``f`` reading starts; None if it cannot be read twice: PyTorch raises its own error then."""
    if _is_path(f):
        return 0 if os.path.isfile(f) and not os.fspath(f).endswith(".safetensors") else None
    try:
        return int(f.tell())
    except Exception:
        return None


def _is_path(f: Any) -> bool:
    return isinstance(f, str | os.PathLike)
