"""Telling a PoinTr-style codebase by its structure, never by a folder's name, without importing any of it.

Three things make one: a registry (`X = Registry(...)`) and a function that returns `X.build(...)`; a function that
loads a YAML into an EasyDict; model classes registered in X that define `build_loss_func` or `get_loss`.
"""

from __future__ import annotations

import ast

from ...errors import HostError
from ..project import Project, last_name
from .structure import Definition, HostModel, RegistryHost, builders_in, models_in, readers_in

_WORDS = (b"Registry", b".build(", b"register_module", b"yaml")


def recognise(project: Project) -> RegistryHost:
    """Recognise a PoinTr-style codebase.

    Raises HostError saying what was looked for, and where, when a part is missing or cannot be told apart.
    """
    root = project.root
    files = {f: tree for f, tree in project.trees.items() if any(word in project.text[f] for word in _WORDS)}
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
        # What could not be read comes first: it is the likeliest reason that something was not found.
        broken = "".join(f"{text}, so it was not looked at. " for text in project.broken.values())
        raise HostError(
            f"{broken}{root} is not a PoinTr-style codebase this plugin knows. Looked through {project.count} Python "
            f"files for {'; and for '.join(missing)}: not found. Give the root of the clone (the folder with its "
            f"main.py){_hint(files)}"
        )
    return RegistryHost(root, builder, reader, models)


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
