"""A pickle is inspected before it is loaded: the names it uses, and the memory it would take. Nothing is executed.

PyTorch's weights-only reader runs no code of a file, but trusts its numbers: 600 bytes can ask for a tensor of two
gigabytes, for the hash of a tuple of 2**60 entries, or for a text to be copied a million times. This module follows the
same instructions, with names and sizes in place of the objects that PyTorch would make, and rejects a file that claims
more than it contains.
"""

from __future__ import annotations

import math
import os
import pickletools
import re
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Iterable
from typing import IO, Any

from ..errors import CheckpointError
from . import container

_LEGACY_PICKLES = 5  # magic number, protocol, system, the object, the keys of its storages
_VALUES = frozenset({"BININT", "BININT1", "BININT2", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING", "LONG1"})
_CONSTANTS = {"NONE": None, "NEWFALSE": False, "NEWTRUE": True}
_COPIES = re.compile(r"_codecs\.encode|builtins\.(bytearray|set)|torch\.Size|collections\.(OrderedDict|Counter)")
_MADE_OF_TENSORS = re.compile(r"torch\._utils\._rebuild_(sparse|device|nested)_?\w*")
_CLASSES = re.compile(r"torch\.(\w+\.)*\w*(Tensor|Storage)")
_VIEWS = re.compile(r"torch\._utils\._rebuild_(tensor(_v\d)?|qtensor)")
_HEAVIEST_KEY, _DEEPEST = 1000, 500
_ENTRIES = {
    "Short": 2, "Half": 2, "BFloat16": 2, "Int": 4, "Float": 4, "QInt32": 4, "Long": 8, "Double": 8,
    "ComplexFloat": 8, "ComplexDouble": 16,
}  # fmt: skip
_DAMAGED = "is cut off or damaged ({}); copy or download it again"
_TOO_MUCH = "claims to hold more than it has bytes for ({}): it is cut off, damaged or made to deceive"


def inspect(file: IO[bytes], kind: str) -> list[str]:
    """The names of the globals in a checkpoint's pickles, each once. The file's position stays.

    Raises CheckpointError, without a file name, if it is damaged or would take more memory than the file has.
    """
    start = file.tell()
    size = file.seek(0, os.SEEK_END) - start
    file.seek(start)
    found = _Looking(size)
    try:
        stream = _Clipped(container.pickled(file, kind))
        for _ in range(1 if kind == container.ZIP else _LEGACY_PICKLES):
            found.follow(stream)
            if found.blind:
                break
    except CheckpointError:
        raise
    except Exception as error:  # pickletools and struct raise many kinds of errors for a damaged file
        reason = f"{type(error).__name__}: {' '.join(str(error)[:300].split())[:120]}"
        raise CheckpointError(_DAMAGED.format(reason)) from None
    finally:
        file.seek(start)
    return list(found.names)


class _Clipped:
    """Reads from a file, never more than it has left: Python would allocate memory for any length that is asked for."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, at = file, file.tell()
        self._end = file.seek(0, os.SEEK_END)
        file.seek(at)
        self.tell = file.tell

    def read(self, count: int) -> bytes:
        return self._file.read(min(count, self._end - self._file.tell()))

    def readline(self) -> bytes:
        return self._file.readline(1 << 16)


class _Name(str):
    """A global."""

    __slots__ = ()


class _Nested(tuple[Any, ...]):
    """A tuple of tuples. weight: number of entries, counting shared tuples each time. depth: levels of tuples."""

    weight: int
    depth: int


def _tuple(items: Iterable[Any]) -> tuple[Any, ...]:
    made = tuple(items)
    inner = [item for item in made if isinstance(item, tuple)]
    if not inner:
        return made
    nested = _Nested(made)
    nested.weight = min(len(made) + sum(map(_weight, inner)), 1 << 40)
    nested.depth = 1 + max(getattr(item, "depth", 1) for item in inner)
    if nested.depth > _DEEPEST:
        raise CheckpointError("is nested too deeply to be a checkpoint")
    return nested


def _weight(value: Any) -> int:
    return getattr(value, "weight", 1 + len(value)) if isinstance(value, tuple) else 1


class _Thing:
    """An object that PyTorch would make. size: bytes of a copy. storage: bytes per entry if it is a storage, else 0."""

    __slots__ = ("args", "name", "size", "storage")

    def __init__(self, name: str = "", args: tuple[Any, ...] = (), size: int = 0, storage: int = 0) -> None:
        self.name, self.args, self.size, self.storage = name, args, size, storage


class _Looking:
    def __init__(self, size: int) -> None:
        self.names: dict[str, None] = {}
        self.blind = False
        self._size = size
        self._storages: dict[Any, _Thing] = {}
        self._claimed = self._copied = 0

    def follow(self, stream: Any) -> None:
        """Follows one pickle up to its STOP. After an instruction that PyTorch does not know, only names are read."""
        stack: list[Any] = []
        marks: list[list[Any]] = []
        memo: dict[Any, Any] = {}
        texts: list[str] = []
        for opcode, argument, _ in pickletools.genops(stream):
            name = opcode.name
            if name in ("GLOBAL", "INST"):
                argument = self._named(*str(argument).split(" ", 1))
            elif name == "STACK_GLOBAL":
                self.names[".".join(texts[-2:])] = None
            elif isinstance(argument, str):
                texts = [*texts[-1:], argument]
            if self.blind:
                continue
            if name in _VALUES or name == "GLOBAL":
                stack.append(argument)
            elif name in ("BINPUT", "LONG_BINPUT"):
                memo[argument] = stack[-1]
            elif name in ("BINGET", "LONG_BINGET"):
                stack.append(memo[argument])
            elif name == "MARK":
                marks.append(stack)
                stack = []
            elif name in ("TUPLE", "APPENDS", "SETITEMS"):
                items = stack
                stack = marks.pop()
                if name == "TUPLE":
                    stack.append(_tuple(items))
                else:
                    self._put(stack[-1], items, keyed=name == "SETITEMS")
            elif name in ("EMPTY_TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"):
                count = 0 if name == "EMPTY_TUPLE" else int(name[-1])
                items = [stack.pop() for _ in range(count)]
                stack.append(_tuple(reversed(items)))
            elif name == "EMPTY_LIST":
                stack.append([])
            elif name in ("EMPTY_DICT", "EMPTY_SET"):
                stack.append(_Thing())
            elif name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            elif name == "APPEND":
                self._put(stack[-2], [stack.pop()])
            elif name == "SETITEM":
                value, key = stack.pop(), stack.pop()
                self._put(stack[-1], [key, value], keyed=True)
            elif name in ("REDUCE", "NEWOBJ"):
                given = stack.pop()
                stack.append(self._call(stack.pop(), given))
            elif name == "BUILD":
                self._build(stack, stack.pop())
            elif name == "BINPERSID":
                stack.append(self._storage(stack.pop()))
            elif name not in ("PROTO", "STOP"):
                self.blind = True

    def _named(self, module: str, name: str) -> _Name:
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        self.names[f"{module}.{name}"] = None
        return _Name(f"{module}.{name}")

    def _put(self, target: Any, items: list[Any], keyed: bool = False) -> None:
        if isinstance(target, list):
            target += items
        elif isinstance(target, _Thing):
            target.size += 32 * len(items)
        for key in items[::2] if keyed else ():
            _check_key(key)

    def _storage(self, described: tuple[Any, ...]) -> _Thing:
        """The object for ("storage", type, key, location, number of entries, view)."""
        if described[:1] == ("module",):
            raise CheckpointError(f"holds a whole module, as PyTorch before 1.6 pickled them: {container.CONVERT}")
        _, kind, key, _, count, *view = described
        if not isinstance(key, str | int) or not _number(count):
            raise CheckpointError(_DAMAGED.format("a storage without a key and a size"))
        if key not in self._storages:
            entry = _bytes_of(kind)
            self._storages[key] = _Thing("storage", (), count * entry, entry)
            self._claimed += count * entry
            if self._claimed > self._size:
                raise CheckpointError(_TOO_MUCH.format(f"storages of {self._claimed} bytes"))
        found = self._storages[key]
        if view and view[0] is not None:
            count = view[0][2]
            if not _number(count) or count * found.storage > found.size:
                raise CheckpointError(_TOO_MUCH.format("a view larger than its storage"))
            return _Thing("storage", (), count * found.storage, found.storage)
        return found

    def _call(self, function: Any, args: Any) -> _Thing:
        if not isinstance(args, tuple):
            raise CheckpointError(_DAMAGED.format("a call without a tuple of arguments"))
        name = function if isinstance(function, _Name) else ""
        if name == "torch._tensor._rebuild_from_type_v2":
            return self._call(args[0], args[2])
        if _VIEWS.fullmatch(name):
            return self._view(name, args)
        if _CLASSES.fullmatch(name):
            if any(not isinstance(arg, _Thing) or arg.name == "torch.Size" for arg in args):
                raise CheckpointError(_TOO_MUCH.format(f"a call of {name}, which torch.save never writes"))
        elif _COPIES.fullmatch(name) and args:
            what = args[0]
            if not isinstance(what, str | list | tuple | _Thing) or (isinstance(what, _Thing) and _is_tensor(what)):
                raise CheckpointError(_TOO_MUCH.format(f"a call of {name}, as torch.save never writes it"))
            for item in what if isinstance(what, list | tuple) else ():
                _check_key(item)
            return _Thing(name, args, self._copy([what]))
        elif _MADE_OF_TENSORS.fullmatch(name):
            self._copy([item for arg in args for item in (arg if isinstance(arg, tuple) else [arg])])
        return _Thing(name, args)

    def _view(self, name: str, args: tuple[Any, ...]) -> _Thing:
        """A tensor of a storage. It must lie within: PyTorch would enlarge a storage that is too small."""
        storage, offset, size, stride = args[:4]
        size, stride = (_numbers(value) for value in (size, stride))
        if not isinstance(storage, _Thing) or not storage.storage or not _number(offset) or len(size) != len(stride):
            raise CheckpointError(_DAMAGED.format("a tensor without a storage, or whose shape is not made of numbers"))
        entry = _bytes_of(args[6]) if name.endswith("_v3") else storage.storage
        count = math.prod(size)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) + 1 if count else 0
        if name.endswith("qtensor"):  # a tensor of this shape is allocated first
            last = max(last, count)
        if last * entry > storage.size:
            raise CheckpointError(_TOO_MUCH.format(f"a tensor of {last * entry} bytes in a storage of {storage.size}"))
        return _Thing(name, args, count * entry)

    def _build(self, stack: list[Any], state: Any) -> None:
        target = stack[-1]
        if isinstance(target, _Thing) and isinstance(state, tuple):
            self._copy(state)  # an array copies its bytes
            if len(state) == 4 and isinstance(state[0], _Thing) and state[0].storage:  # Tensor.set_
                self._view("", state)

    def _copy(self, values: Iterable[Any]) -> int:
        size = 0
        for value in values:
            if isinstance(value, list | tuple):
                size += 32 * len(value)
            else:
                size += len(value) if isinstance(value, str) else getattr(value, "size", 0)
        self._copied += size
        if self._copied > 4 * self._size + (1 << 20):
            raise CheckpointError(_TOO_MUCH.format(f"copies of {self._copied} bytes"))
        return size


def _is_tensor(thing: _Thing) -> bool:
    return thing.name.startswith(("torch", "storage")) and thing.name != "torch.Size"


def _check_key(key: Any) -> None:
    if _weight(key) > _HEAVIEST_KEY:
        raise CheckpointError(_TOO_MUCH.format(f"a key of {_weight(key)} entries"))


def _numbers(value: Any) -> list[int]:
    """A shape: a tuple, a list or a torch.Size of one."""
    if isinstance(value, _Thing) and value.name == "torch.Size" and value.args:
        value = value.args[0]
    if not isinstance(value, list | tuple) or not all(_number(item) for item in value):
        raise CheckpointError(_DAMAGED.format("a shape that is not made of numbers"))
    return list(value)


def _number(value: Any) -> bool:
    return type(value) is int and value >= 0


def _bytes_of(kind: Any) -> int:
    """Of one entry of a storage class or a dtype, by its name. PyTorch itself rejects unknown names."""
    import torch

    name = str(kind).rpartition(".")[2]
    dtype = getattr(torch, name, None)
    return dtype.itemsize if isinstance(dtype, torch.dtype) else _ENTRIES.get(name.removesuffix("Storage"), 1)
