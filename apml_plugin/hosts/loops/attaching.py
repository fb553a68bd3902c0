"""The edits of a patch, made to a module in memory right after it was imported: no file is touched."""

from __future__ import annotations

import ast
import contextlib
import importlib
import os
import sys
import types
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from ...errors import HostError
from ...patching import Edit, Line
from ...patching.source import insert, present
from ..announce import announce
from ..chosen import VARIABLE, chosen_loss
from .recognise import Fork, in_file, recognise


def attach_to_module(module: ModuleType, root: str | None = None) -> bool:
    """Do to an imported module what a patch of its host would do; True if there was anything to do.

    root: the host's folder, by default the one that ``apml run`` names. Harmless on a patched clone.
    Raises HostError if ``APML_LOSS`` asks for a loss and nothing in the host can take it.
    """
    file = getattr(module, "__file__", None)
    root = root or os.environ.get("APML_RUN_ROOT", "")
    if not file or not root or not file.endswith(".py"):
        return False
    path = Path(file).resolve()
    try:
        relative = path.relative_to(Path(root).resolve()).as_posix()
    except ValueError:
        return False
    fork = _fork(os.path.realpath(root), chosen_loss()[2] == VARIABLE)
    edits = in_file(fork, relative) if fork else ()
    if edits:
        data = path.read_bytes()
        for edit in edits:
            _make(module, edit, data)
    return bool(edits)


@cache
def _fork(root: str, asked: bool) -> Fork | None:
    """The host below `root`; None if there is none, or if it is of another kind."""
    try:
        fork = recognise(root)
    except HostError:
        if asked and not _is_other_kind(root):
            raise
        return None
    if _is_other_kind(root):
        return None
    _look_at_script(fork, asked)
    return fork


def _look_at_script(fork: Fork, asked: bool) -> None:
    """The script itself is run from its file, out of reach: if it needs a line, only a patch can put it there."""
    script = os.path.realpath(sys.argv[0]) if sys.argv and sys.argv[0] else ""
    if not script.endswith(".py") or not script.startswith(os.path.join(os.path.realpath(fork.root), "")):
        return
    edits = in_file(fork, Path(script).relative_to(fork.root).as_posix())
    if edits and not present(Path(script).read_bytes(), edits):
        text = (
            f"{script} is the script that runs, and its own code needs a line that only `apml patch {fork.root}` adds"
        )
        if asked:
            raise HostError(f"{text}; patch it, then run again")
        announce(f"[apml] {text}")


def _is_other_kind(root: str) -> bool:
    """Whether a host of another kind is there, to which the loss comes on a way of its own."""
    from ..csi2pointcloud.structure import recognise as recognise_csi
    from ..recognise import recognise as recognise_registry

    for other in (recognise_registry, recognise_csi):
        with contextlib.suppress(HostError):
            other(root)
            return True
    return False


def _make(module: ModuleType, edit: Edit | Line, data: bytes) -> None:
    source = importlib.import_module(edit.source)
    if isinstance(edit, Edit):
        holder, name = _holder(module, edit.anchor)
        original = vars(holder).get(name) if holder is not None else None
        kind = type(original) if isinstance(original, staticmethod | classmethod) else None
        original = original.__func__ if isinstance(original, staticmethod | classmethod) else original
        if isinstance(original, FunctionType):
            decorator = getattr(source, edit.decorator)
            if edit.arguments:
                given = ast.parse(f"f{edit.arguments}", mode="eval").body
                assert isinstance(given, ast.Call)
                decorator = decorator(
                    *(ast.literal_eval(a) for a in given.args),
                    **{k.arg: ast.literal_eval(k.value) for k in given.keywords if k.arg},
                )
            decorated = decorator(original)
            setattr(holder, name, kind(decorated) if kind else decorated)
        return
    holder, name = _holder(module, edit.scope)
    function = vars(holder).get(name) if holder is not None else None
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__  # type: ignore[union-attr]
    if isinstance(function, FunctionType) and edit.name not in function.__code__.co_names:
        vars(module)[edit.name] = getattr(source, edit.name)
        function.__code__ = _code(edit, data, function)


def _holder(module: ModuleType, qualified: str) -> tuple[Any, str]:
    *above, name = qualified.split(".")
    holder: Any = module
    for part in above:
        holder = vars(holder).get(part) if holder is not None else None
    return holder, name


def _code(edit: Line, data: bytes, function: FunctionType) -> types.CodeType:
    """The function's code with the line in it; every other line keeps its number in tracebacks."""
    new = insert(data, edit)
    tree = ast.parse(new)
    added = [n for n, line in enumerate(new.splitlines(), start=1) if line.strip().endswith(b"# apml-plugin")]
    old = [n for n, line in enumerate(data.splitlines(), start=1) if line.strip().endswith(b"# apml-plugin")]
    inserted = added if not old else []
    for node in ast.walk(tree):
        for field in ("lineno", "end_lineno"):
            number = getattr(node, field, None)
            if number is not None:
                setattr(node, field, max(1, number - sum(1 for n in inserted if n <= number)))
    compiled = compile(tree, function.__code__.co_filename, "exec")
    for code in _codes(compiled):
        if code.co_qualname == edit.scope if hasattr(code, "co_qualname") else code.co_name == function.__name__:
            return code
    return function.__code__


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield constant
            yield from _codes(constant)
