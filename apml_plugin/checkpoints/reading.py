"""Reading a checkpoint without running anything in it."""

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
from . import container, looking, placeholders
from .legacy import without_modules
from .restoring import restore

TRUST = (
    "Where you trust whoever made it, load it with PyTorch itself (torch.load(FILE, weights_only=False)) and save its "
    "state dict alone with torch.save"
)
_SHOWN = 6
_REFUSED = re.compile(r"(?:GLOBAL|function) (\S+) (?:was not an allowed|whose module)")
_lock = threading.Lock()


@dataclass(frozen=True)
class Read:
    """What was in a file. kept: names of host classes that are plain values in ``value``; none: read by default."""

    value: Any
    kind: str
    kept: tuple[str, ...] = ()


def read(path: str | os.PathLike[str]) -> Read:
    """The checkpoint at ``path``, on the CPU.

    Raises CheckpointError, naming the file and the remedy: no such file, a folder, empty, cut off, no checkpoint, or
    one that can only be read by running what is in it.
    """
    with container.open_file(path) as file:
        try:
            kind = container.kind_of(file)
            if kind == container.SAFETENSORS:
                return Read(_safetensors(path), kind)
            return _read(file, kind)
        except CheckpointError as error:
            raise CheckpointError(printable(f"{path}: {error}")) from None


def _read(file: IO[bytes], kind: str) -> Read:
    seen = looking.look(file, kind)
    # What this process admitted elsewhere (an imported library's classes, say) must not decide what is refused here.
    try:
        with admitting([]):
            return Read(torch.load(file, map_location="cpu", weights_only=True), kind)
    except UnpicklingError as error:
        file.seek(0)
        return read_with_shells(file, kind, str(error), torch.load, others=False, seen=seen, map_location="cpu")
    except Exception as error:
        raise _damaged(error) from None


def read_with_shells(
    file: Any,
    kind: str,
    refusal: str,
    load: Callable[..., Any],
    remedy: str = TRUST,
    others: bool = True,
    seen: looking.Look | None = None,
    **options: Any,
) -> Read:
    """Reads what the default refused: the same weights-only reader, knowing the names in `placeholders` besides.

    Args:
        file: an open binary file, at its start.
        refusal: what the default reader said.
        load: PyTorch's own ``torch.load``.
        remedy: a sentence for the error.
        others: what else the process admitted stays admitted, unless it has a shell's name.
        seen: what looking through the file gave, if that was done.

    Raises CheckpointError, without a file name, if the file needs any other name or is damaged.
    """
    start = file.tell()
    seen = seen or looking.look(file, kind)
    names = seen.names
    try:
        source = without_modules(file, seen) if kind == container.LEGACY else file
        known = {_name(entry): entry for entry in torch.serialization.get_safe_globals()} if others else {}
        # A loss of ours is made where the process would make it; the other names are always shells.
        shells = [s for s in placeholders.ALL if s not in placeholders.OWN or placeholders.name_of(s) not in known]
        names_of_shells = set(map(placeholders.name_of, shells))
        with admitting([*(entry for name, entry in known.items() if name not in names_of_shells), *shells]):
            value = load(source, weights_only=True, **options)
    except UnpicklingError as error:
        raise CheckpointError(_refusal(str(error) or refusal, names, remedy)) from None
    except Exception as error:
        raise _damaged(error) from None
    finally:
        file.seek(start)
    return Read(restore(value), kind, _kept(names))


def _kept(names: list[str]) -> tuple[str, ...]:
    """The host classes among ``names``, and NumPy's many names as one word."""
    known = [name for name in names if name in placeholders.NAMES]
    numbers = ["NumPy values"] if any(name.startswith("numpy.") for name in known) else []
    return (*(name for name in known if not name.startswith(("numpy.", "builtins."))), *numbers)


@contextlib.contextmanager
def admitting(entries: list[Any]) -> Iterator[None]:
    """While it lasts PyTorch's reader knows these globals besides its own, and no others."""
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


def _refusal(message: str, names: list[str], remedy: str) -> str:
    found = _REFUSED.search(message)
    name = "" if found is None else found[1] if "." in found[1] else f"builtins.{found[1]}"
    others = [other for other in names if other != name and not _known(other)]
    listed = ", ".join(others[:_SHOWN]) + (" and more" if len(others) > _SHOWN else "")
    also = f" (it {'also ' if name else ''}names {listed})" if others else ""
    if name:
        return f"refused: it asks for {name}{also}, which is not plain data. Nothing in it was run. {remedy}"
    lines = [line.strip() for line in message.splitlines() if line.strip() and "pytorch.org" not in line]
    reason = lines[-1][:200] if lines else "no reason given"
    return f"refused: PyTorch's weights-only reader does not follow it: {reason}{also}. Nothing in it was run. {remedy}"


def _known(name: str) -> bool:
    return name in placeholders.NAMES or name.startswith(("torch.", "collections.")) or name == "_codecs.encode"


def _damaged(error: BaseException) -> CheckpointError:
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return CheckpointError("asks for more memory than there is: it is damaged, or larger than this machine")
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
