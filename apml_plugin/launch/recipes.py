"""A host's recipe put into its modules while they are imported, the main script included.

What is executed is the text that ``apml patch`` would write (:mod:`apml_plugin.patching.memory`); nothing on disk
changes, and tracebacks show the lines of the file. Standard library only until a module of a project is imported.
"""

from __future__ import annotations

import importlib.machinery
import json
import os
import sys
import sysconfig
from dataclasses import astuple
from functools import cache
from types import CodeType, ModuleType
from typing import Any

from apml_plugin.errors import AmbiguousError, HostError
from apml_plugin.launch import environment

_LIMIT = 100_000
"""Bytes that a recipe may take in an environment variable; each process works out a longer one itself."""

_scripts: dict[str, CodeType] = {}
"""The code of each script that a `Script` was made for."""


class Lines:
    """The lines for the files of one project.

    notes: losses that stay the host's, for the guard's message. unclear: why there are no lines, where two files could
    be what trains.
    """

    def __init__(self, root: str, edits: dict[str, list[Any]], notes: list[str], unclear: str = "") -> None:
        self.root, self.edits, self.notes, self.unclear = root, edits, notes, unclear

    def write(self) -> str:
        """The text for `RECIPE`; empty if it is too long."""
        edits = {file: [astuple(line) for line in some] for file, some in self.edits.items()}
        text = json.dumps([self.root, edits, self.notes])
        return text if len(text) < _LIMIT else ""


@cache
def of(root: str) -> Lines:
    """The lines of the project at `root`; none if it is no host. Raises whatever else goes wrong."""
    from apml_plugin.hosts.base import identify
    from apml_plugin.patching import Line

    written = os.environ.get(environment.RECIPE, "")
    if written:
        written_root, edits, notes = json.loads(written)
        if written_root == root:
            return Lines(root, {file: [Line(*line) for line in some] for file, some in edits.items()}, notes)

    try:
        host = identify(root)
    except HostError as error:
        return Lines(root, {}, [str(error)], str(error) if isinstance(error, AmbiguousError) else "")
    by_file: dict[str, list[Any]] = {}
    for edit in host.edits:
        by_file.setdefault(edit.file, []).append(edit)
    return Lines(root, by_file, [*host.refused, *host.kept])


@cache
def _root(folder: str) -> str:
    from apml_plugin.files.sources import root_of

    return root_of(folder)


def code_for(path: str) -> CodeType | None:
    """The code of a project's file with its lines in it; None for a file that gets none.

    Any error stops the run: a rank or a worker that went on without the loss would train with another one.
    """
    from apml_plugin.hosts import guard

    try:
        real = os.path.realpath(path)
        lines = of(_root(os.path.dirname(real)))
        guard.state.notes.extend(note for note in lines.notes if note not in guard.state.notes)
        edits = lines.edits.get(os.path.relpath(real, lines.root).replace(os.sep, "/"))
        if not edits:
            return None
        from apml_plugin.patching.memory import compiled

        with open(real, "rb") as file:
            return compiled(file.read(), edits, path)
    except Exception as error:
        return guard.stop(f"{path} could not be given the loss: {type(error).__name__}: {error}")  # type: ignore[func-returns-value]


def into(spec: importlib.machinery.ModuleSpec) -> None:
    """Makes a module that is about to be imported run with its lines."""
    if isinstance(spec.loader, importlib.machinery.SourceFileLoader) and spec.origin:
        code = code_for(spec.origin)
        if code is not None:
            # Shadowed on this one loader, whose type stays what inspect and pkgutil expect.
            spec.loader.get_code = lambda fullname: code  # type: ignore[method-assign]


def into_pdb(pdb: ModuleType) -> None:
    """Gives pdb, which reads the script that it debugs by itself, the code with the lines. From Python 3.11."""
    script = getattr(pdb, "_ScriptTarget", None)
    if script is not None:
        code = script.code.fget  # the object is the path itself up to Python 3.12, later it holds the path
        script.code = property(lambda self: code_for(str(getattr(self, "_target", self))) or code(self))


class Script:
    """Finds ``__main__`` in a script that gets lines.

    Python asks each of ``sys.path_hooks`` whether the script that it runs is a folder or archive with a ``__main__``.
    This one says yes for a script that gets lines, and then provides its ``__main__``.
    """

    def __init__(self, path: str) -> None:
        code = code_for(path) if path.endswith(".py") and os.path.isfile(path) and not is_library(path) else None
        if code is None:
            raise ImportError
        self.path, _scripts[path] = path, code

    def find_spec(self, name: str, target: ModuleType | None = None) -> importlib.machinery.ModuleSpec | None:
        if name != "__main__":
            return None
        spec = importlib.machinery.ModuleSpec(name, self, origin=self.path)  # type: ignore[arg-type]
        spec.has_location = True
        return spec

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def get_code(self, name: str) -> CodeType:
        run = f"__import__({__name__!r}, fromlist=['run_script']).run_script({self.path!r}, globals())"
        return compile(run, f"<{__name__}>", "exec")


def run_script(path: str, scope: dict[str, Any]) -> None:
    """Runs a script in `scope` as Python itself would: by its path, not as a module with a spec."""
    if scope.get("__name__") == "__main__" and sys.path[:1] == [path]:
        sys.path[:1] = [] if getattr(sys.flags, "safe_path", False) else [os.path.dirname(os.path.realpath(path))]
    loader = importlib.machinery.SourceFileLoader(scope["__name__"], path)
    scope.update(__file__=path, __spec__=None, __package__=None, __cached__=None, __loader__=loader)
    exec(_scripts[path], scope)


@cache
def _libraries() -> tuple[str, ...]:
    ours = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    places = {sysconfig.get_path(key) for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    return tuple(os.path.join(os.path.realpath(place), "") for place in (*places, ours) if place)


def is_library(path: str) -> bool:
    """Whether a file belongs to the standard library, to an installed package or to this plugin."""
    real = os.path.realpath(path)
    return real.startswith(_libraries()) or "site-packages" in real or "dist-packages" in real
