"""Which globals a pickle names, found by looking through its instructions without following any of them."""

from __future__ import annotations

import itertools
import pickle
import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from typing import IO

from . import container

_MOST_INSTRUCTIONS = 5_000_000
_LEGACY_PICKLES = 4  # magic number, protocol, system, and then the object


def globals_in(file: IO[bytes], kind: str) -> list[str]:
    """Names in the order met, each once. What cannot be looked through gives the names up to there."""
    start = file.tell()
    names: dict[str, None] = {}
    try:
        stream = container.pickled(file, kind)
        for _ in range(1 if kind == container.ZIP else _LEGACY_PICKLES):
            names.update(dict.fromkeys(_names(stream)))
    except (ValueError, RuntimeError, EOFError, pickle.UnpicklingError):
        pass
    finally:
        file.seek(start)
    return list(names)


def _names(stream: IO[bytes]):  # type: ignore[no-untyped-def]
    texts: list[str] = []
    for opcode, argument, _ in itertools.islice(pickletools.genops(stream), _MOST_INSTRUCTIONS):
        if opcode.name in ("GLOBAL", "INST"):
            module, _, name = str(argument).partition(" ")
            if (module, name) in NAME_MAPPING:
                module, name = NAME_MAPPING[(module, name)]
            yield f"{IMPORT_MAPPING.get(module, module)}.{name}"
        elif opcode.name == "STACK_GLOBAL":
            yield ".".join(texts[-2:])
        elif isinstance(argument, str):
            texts = [*texts[-1:], argument]
