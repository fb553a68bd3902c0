"""Reading a checkpoint without running any code in it."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pickle import UnpicklingError
from typing import IO, Any

import torch

from ..errors import CheckpointError
from ..files.opening import printable
from . import container, pickle_bounds, placeholders
from .layouts import Checkpoint, take_apart

TRUST = (
    "If you trust its author, load it with PyTorch itself (torch.load(FILE, weights_only=False)) and save its state "
    "dict alone with torch.save"
)
_SHOWN = 6
_REJECTED = re.compile(r"(?:GLOBAL|function) (\S+) (?:was not an allowed|whose module)")
_lock = threading.Lock()


@dataclass(frozen=True)
class Read:
    """The content of a file. kept: classes of hosts that became plain values; none if PyTorch's default read it."""

    value: Any
    kind: str
    kept: tuple[str, ...] = ()


def read(path: str | os.PathLike[str]) -> Read:
    """The checkpoint at ``path``, on the CPU.

    Raises CheckpointError, naming the file and the remedy, if it is missing, a folder, empty, cut off, not a
    checkpoint, or cannot be read without running code in it.
    """
    with container.open_file(path) as file:
        try:
            kind = container.kind_of(file)
            if kind == container.SAFETENSORS:
                return Read(_safetensors(path), kind)
            return _read(file, kind)
        except CheckpointError as error:
            raise CheckpointError(printable(f"{path}: {error}")) from None


def read_parts(path: str | os.PathLike[str]) -> tuple[Read, Checkpoint]:
    """The checkpoint at ``path`` and its parts. Raises CheckpointError as `read`, and if it holds no weights."""
    contents = read(path)
    try:
        return contents, take_apart(contents.value)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _read(file: IO[bytes], kind: str) -> Read:
    names = pickle_bounds.inspect(file, kind)
    # Classes that other code of this process admitted, such as an imported library, must not matter here.
    try:
        with admitting([]):
            return Read(torch.load(file, map_location="cpu", weights_only=True), kind)
    except UnpicklingError as error:
        file.seek(0)
        return read_with_placeholders(file, kind, str(error), torch.load, others=False, names=names, map_location="cpu")
    except Exception as error:
        raise _damaged(error) from None


def read_with_placeholders(
    file: Any,
    kind: str,
    rejection: str,
    load: Callable[..., Any],
    remedy: str = TRUST,
    others: bool = True,
    names: list[str] | None = None,
    **options: Any,
) -> Read:
    """Reads a file that the default rejected, with the same weights-only reader and the classes of `placeholders`.

    Args:
        file: an open binary file, at its start.
        rejection: the message of the default reader.
        load: PyTorch's own ``torch.load``.
        remedy: a sentence for the error.
        others: other classes that the process admitted stay admitted, unless a placeholder has their name.
        names: the result of `pickle_bounds.inspect`, if it was called before.

    Raises CheckpointError, without a file name, if the file needs any other name or is damaged.
    """
    start = file.tell()
    names = pickle_bounds.inspect(file, kind) if names is None else names
    try:
        known = {_name(entry): entry for entry in torch.serialization.get_safe_globals()} if others else {}
        # A loss of this package is made if the process would make it; the other names are always placeholders.
        classes = [s for s in placeholders.ALL if s not in placeholders.OWN or placeholders.name_of(s) not in known]
        their_names = set(map(placeholders.name_of, classes))
        with admitting([*(entry for name, entry in known.items() if name not in their_names), *classes]):
            value = load(file, weights_only=True, **options)
    except UnpicklingError as error:
        raise CheckpointError(_rejection(str(error) or rejection, names, remedy)) from None
    except Exception as error:
        raise _damaged(error) from None
    finally:
        file.seek(start)
    return Read(placeholders.restore(value), kind, _kept(names))


def _kept(names: list[str]) -> tuple[str, ...]:
    """The classes of hosts among ``names``, and 'NumPy values' for all names of NumPy."""
    known = [name for name in names if name in placeholders.NAMES]
    numbers = ["NumPy values"] if any(name.startswith("numpy.") for name in known) else []
    return (*(name for name in known if not name.startswith(("numpy.", "builtins."))), *numbers)


@contextlib.contextmanager
def admitting(entries: list[Any]) -> Iterator[None]:
    """Inside the block, PyTorch's reader knows its own globals and these, and no others."""
    serialization = torch.serialization
    with _lock:
        before = list(serialization.get_safe_globals())
        serialization.clear_safe_globals()
        try:
            serialization.add_safe_globals(entries)
            yield
        finally:
            serialization.clear_safe_globals()
            serialization.add_safe_globals(before)


def _name(entry: Any) -> str:
    if isinstance(entry, tuple):
        return str(entry[1])
    return f"{entry.__module__}.{getattr(entry, '__qualname__', entry.__name__)}"


def _rejection(message: str, names: list[str], remedy: str) -> str:
    match = _REJECTED.search(message)
    name = "" if match is None else match[1] if "." in match[1] else f"builtins.{match[1]}"
    others = [other for other in names if other != name and not _known(other)]
    listed = ", ".join(others[:_SHOWN]) + (" and more" if len(others) > _SHOWN else "")
    also = f" (it {'also ' if name else ''}names {listed})" if others else ""
    if name:
        return f"rejected: it asks for {name}{also}, which is not plain data. No code in it was run. {remedy}"
    lines = [line.strip() for line in message.splitlines() if line.strip() and "pytorch.org" not in line]
    reason = lines[-1][:200] if lines else "no reason given"
    return f"rejected: PyTorch's weights-only reader cannot read it: {reason}{also}. No code in it was run. {remedy}"


def _known(name: str) -> bool:
    return name in placeholders.NAMES or name.startswith(("torch.", "collections.")) or name == "_codecs.encode"


def _damaged(error: BaseException) -> CheckpointError:
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return CheckpointError("needs more memory than is available: it is damaged, or too large for this machine")
    reason = " ".join(str(error).split())[:160]
    return CheckpointError(f"is cut off or damaged ({type(error).__name__}: {reason}); copy or download it again")


def _safetensors(path: str | os.PathLike[str]) -> Any:
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise CheckpointError("is a safetensors file; to read it: pip install safetensors") from None
    try:
        return load_file(path)
    except Exception as error:
        raise _damaged(error) from None
