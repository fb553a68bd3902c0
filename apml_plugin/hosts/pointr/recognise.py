"""Telling a PoinTr-style codebase by its structure, never by a folder's name, without importing any of it.

Three things make one: a registry (`X = Registry(...)`) and a function that returns `X.build(...)`; a function that
loads a YAML into an EasyDict; model classes registered in X that define `build_loss_func` or `get_loss`.
"""

from __future__ import annotations

import ast
import os
from pathlib import Path

from ...errors import HostError
from ...files import sources
from .stages import last_name
from .structure import Definition, HostModel, RegistryHost, builders_in, models_in, readers_in

_DEPTH = 4


def recognise(path: str | os.PathLike[str]) -> RegistryHost:
    """Recognise the PoinTr-style codebase at `path`.

    Raises HostError saying what was looked for, and where, when a part is missing or cannot be told apart.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise HostError(f"{root} is not a folder; give the root of the clone (the folder with its main.py)")
    root = root.resolve()
    files, broken = _parse_all(root)
    near = {f: t for f, t in files.items() if f.count("/") < 2}
    builder, models = _builder_and_models(near)
    if builder is None and (any(root.glob("*.py")) or (root / ".git").exists()):
        # Its folders may have been moved deeper; a folder that only holds clones is not one itself.
        builder, models = _builder_and_models(files)
        near = files if builder else near
    reader = _nearest([d for f, tree in near.items() for d in readers_in(f, tree)])
    missing = []
    if builder is None:
        missing.append(
            "a registry (X = Registry(...)) with a function returning X.build(...), and model classes registered in it "
            "that define build_loss_func or get_loss"
        )
    if reader is None:
        missing.append("a function that opens a YAML file and loads it into an EasyDict")
    if builder is None or reader is None:
        raise HostError(
            f"{_not_parsed(broken)}{root} is not a PoinTr-style codebase this plugin knows. Looked through "
            f"{len(files)} Python files for {'; and for '.join(missing)}: not found. Give the root of the clone (the "
            f"folder with its main.py){_hint(files)}"
        )
    return RegistryHost(root, builder, reader, models)


def _parse_all(root: Path) -> tuple[dict[str, ast.Module], list[str]]:
    """The trees of all files that could matter, and those that do not parse: a stray one is no reason to stop."""
    files, broken = {}, []
    for file in sources.python_files(root, _DEPTH):
        try:
            data = sources.read_source(root, file)
            named = any(word in data for word in (b"Registry", b".build(", b"register_module", b"yaml"))
            if named or file.count("/") < 2:
                tree = sources.parse(data)
                files.update({file: tree} if named else {})
        except (OSError, SyntaxError) as error:
            broken.append(file + sources.why(error))
    return files, broken


def _not_parsed(broken: list[str]) -> str:
    """What could not be read comes first: it is the likeliest reason that something was not found."""
    return "".join(f"{text}, so it was not looked at. " for text in broken)


def _hint(files: dict[str, ast.Module]) -> str:
    """Where a clone may lie when the folder above it was given."""
    deep = {
        parts[0] for file, tree in files.items() if len(parts := file.split("/")) > 2 and any(readers_in(file, tree))
    }
    return f"; try {', '.join(sorted(deep))} in it" if deep else ""


def _registries(files: dict[str, ast.Module]) -> set[str]:
    """Names bound to `Registry(...)` at the top level of any file."""
    return {
        target.id
        for tree in files.values()
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Call)
        and last_name(node.value.func) == "Registry"
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _builder_and_models(files: dict[str, ast.Module]) -> tuple[Definition | None, tuple[HostModel, ...]]:
    for registry in sorted(_registries(files)):
        models = [m for file, tree in files.items() for m in models_in(file, tree, registry)]
        builders = [d for file, tree in files.items() for d in builders_in(file, tree, registry)]
        if models and builders:
            return _nearest(builders), tuple(sorted(models, key=lambda m: m.name))
    return None, ()


def _nearest(found: list[Definition]) -> Definition | None:
    """The one nearest to the root. Raises HostError if two are equally near."""
    if not found:
        return None
    found = sorted(found, key=lambda d: d.file.count("/"))
    rivals = [d for d in found if d.file.count("/") == found[0].file.count("/")]
    if len(rivals) > 1:
        raise HostError("cannot tell which of these to patch: " + ", ".join(str(d) for d in rivals))
    return found[0]
