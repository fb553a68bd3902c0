"""Recognising a PoinTr-style codebase by its structure, without importing any of it.

Three parts make one: a registry (`X = Registry(...)`) and a function that returns `X.build(...)`; a function that
loads a YAML into an EasyDict; model classes registered in X that train with a Chamfer distance.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...arguments import counted
from ...errors import AmbiguousError, HostError
from ..loops.chosen_by_string import builds_chamfer, chains_in
from ..project import Definition, Project, dotted, inside, last_name
from .stages import LossSite, sites_of

_WORDS = (b"Registry", b".build(", b"register_module", b"yaml")


@dataclass(frozen=True)
class HostModel:
    """A model class that the host can build.

    Attributes:
        sites: the attributes that hold its training loss.
        reads: the config keys that its constructor requires.
        chain: (parameter, known name) of a `build_loss_func` that chooses by a string and rejects other names.
        makes: whether any of its methods makes a Chamfer object, so that a built model holds one.
    """

    definition: Definition
    sites: tuple[LossSite, ...]
    reads: tuple[str, ...] = ()
    chain: tuple[str, str] | None = None
    makes: bool = False

    @property
    def name(self) -> str:
        return self.definition.name

    @property
    def stages(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(stage for site in self.sites for stage in site.stages))


@dataclass(frozen=True)
class RegistryHost:
    """A PoinTr-style codebase. builder: the function that builds models. reader: the function that reads a YAML.

    own_loss: where the host reads entries of a top-level ``loss:`` of its own.
    """

    root: Path
    builder: Definition
    reader: Definition
    models: tuple[HostModel, ...]
    own_loss: tuple[str, ...] = ()


def recognise(project: Project) -> RegistryHost:
    """The parts of a PoinTr-style codebase. Raises HostError if a part is missing or ambiguous."""
    root = project.root
    files = {f: tree for f, tree in project.trees.items() if any(word in project.text[f] for word in _WORDS)}
    near = {f: t for f, t in files.items() if f.count("/") < 2}
    builder, models = _builder_and_models(near, project)
    if builder is None and (any(root.glob("*.py")) or (root / ".git").exists()):
        # A clone may have its parts in deeper folders; a folder that only holds clones is no clone itself.
        builder, models = _builder_and_models(files, project)
        near = files if builder else near
    reader = _the_one([d for f, tree in near.items() for d in _readers_in(f, tree)], "reads the YAML", project)
    missing = []
    if builder is None:
        missing.append(
            "a registry (X = Registry(...)) with a function returning X.build(...), and model classes registered in it "
            "that define build_loss_func or get_loss"
        )
    if reader is None:
        missing.append("a function that opens a YAML file and loads it into an EasyDict")
    if builder is None or reader is None:
        # A file that could not be read is the likeliest reason that a part was not found.
        broken = "".join(f"{text}, so it was not looked at. " for text in project.broken.values())
        if (builder or _may_hold(project, b"Registry", b".build(")) and (
            reader or _may_hold(project, b"yaml", b"open")
        ):
            raise AmbiguousError(
                f"{broken}{root} looks like a PoinTr-style codebase, but such a file must hold {'; and '.join(missing)}"
            )
        raise HostError(
            f"{broken}{root} is not a PoinTr-style codebase this plugin knows. Looked through "
            f"{counted(project.count, 'Python file')} for {'; and for '.join(missing)}: not found. Give the root of "
            f"the clone (the folder with its main.py){_hint(files)}"
        )
    return RegistryHost(root, builder, reader, models)


def _may_hold(project: Project, *words: bytes) -> bool:
    """Whether a file that could not be read as Python has all of `words`, or is a link out of the clone."""
    texts = [(project.root / file, project.text.get(file, b"")) for file in project.broken]
    return any(path.is_symlink() or all(word in text for word in words) for path, text in texts)


def _hint(files: dict[str, ast.Module]) -> str:
    """The folder of a clone, if the folder above it was given."""
    deep = {
        parts[0] for file, tree in files.items() if len(parts := file.split("/")) > 2 and any(_readers_in(file, tree))
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


def _builder_and_models(
    files: dict[str, ast.Module], project: Project
) -> tuple[Definition | None, tuple[HostModel, ...]]:
    for registry in sorted(_registries(files)):
        models = [m for file, tree in files.items() for m in _models_in(file, tree, registry)]
        builders = [d for file, tree in files.items() for d in _builders_in(file, tree, registry)]
        if models and builders:
            return _the_one(builders, "builds the models", project), tuple(sorted(models, key=lambda m: m.name))
    return None, ()


def _the_one(found: list[Definition], does: str, project: Project) -> Definition | None:
    """Of the definitions that scripts import (of all, if they import none) the one nearest to the root.

    does: what each of them does, for the message. Raises AmbiguousError if two are equally near.
    """
    if not found:
        return None
    found = [definition for definition in found if definition.file in project.imported] or found
    least = min(definition.file.count("/") for definition in found)
    nearest = [definition for definition in found if definition.file.count("/") == least]
    if len(nearest) > 1:
        raise AmbiguousError(
            f"cannot tell which of these {does}: {', '.join(f'{d.file}:{d.line} {d.name}' for d in nearest)}. "
            "Move the one that is not used out of the clone, or rename it to end in .bak"
        )
    return nearest[0]


def _builders_in(file: str, tree: ast.Module, registry: str) -> Iterator[Definition]:
    """Top-level functions that return `<registry>.build(...)`."""
    for node in tree.body:
        returned = [n.value for n in inside(node, ast.Return)] if isinstance(node, ast.FunctionDef) else []
        made = [value.func for value in returned if isinstance(value, ast.Call)]
        if any(isinstance(f, ast.Attribute) and f.attr == "build" and last_name(f.value) == registry for f in made):
            yield Definition(file, node.name, node.lineno)  # type: ignore[attr-defined]


def _models_in(file: str, tree: ast.Module, registry: str) -> Iterator[HostModel]:
    for node in tree.body:
        if not isinstance(node, ast.ClassDef) or not any(_registers(d, registry) for d in node.decorator_list):
            continue
        methods = {inner.name: inner for inner in node.body if isinstance(inner, ast.FunctionDef)}
        build, get_loss = methods.get("build_loss_func"), methods.get("get_loss")
        made = any("chamfer" in last_name(n.func).lower() for n in ast.walk(node) if isinstance(n, ast.Call))
        if build or get_loss or made:
            reads = _config_reads(methods["__init__"]) if "__init__" in methods else ()
            place, sites = Definition(file, node.name, node.lineno), sites_of([node.name], build, get_loss)
            yield HostModel(place, sites, reads, _chain_of(build) if build else None, made)


def _chain_of(build: ast.FunctionDef) -> tuple[str, str] | None:
    """(parameter, a name for which a Chamfer is built) of an if/elif chain over strings in `build_loss_func`."""
    parameters = [argument.arg for argument in build.args.args]
    found = [(subject, known) for subject, known, _ in chains_in(build, builds_chamfer) if subject in parameters]
    return found[0] if found else None


def _config_reads(init: ast.FunctionDef) -> tuple[str, ...]:
    """The names read as `config.name` by assignments that always run, outside of any if, loop or try."""
    config = [argument.arg for argument in init.args.args][1:2]
    plain = [dotted(statement.value).split(".") for statement in init.body if isinstance(statement, ast.Assign)]
    return tuple(dict.fromkeys(name[1] for name in plain if len(name) == 2 and name[:1] == config))


def _registers(decorator: ast.expr, registry: str) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return (
        isinstance(called, ast.Attribute) and called.attr == "register_module" and last_name(called.value) == registry
    )


def _readers_in(file: str, tree: ast.Module) -> Iterator[Definition]:
    """Top-level functions that open the file that a parameter names, call `yaml.*load*` and EasyDict, and return.

    PoinTr's merging helper loads YAML, too, but calls itself, and its KITTI script reads a fixed file: not these.
    """
    imported = [a for n in tree.body if isinstance(n, ast.ImportFrom) and n.module == "easydict" for a in n.names]
    easydict = {"EasyDict", *(alias.asname for alias in imported if alias.asname)}
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef):
            continue
        calls = list(inside(node, ast.Call))
        names, parameters = {last_name(call.func) for call in calls}, {argument.arg for argument in node.args.args}
        loads = any(re.fullmatch(r"yaml\.\w*load\w*", dotted(call.func)) for call in calls)
        returns = any(inner.value for inner in inside(node, ast.Return))
        opens = any(_opens(call, parameters) for call in calls)
        if opens and loads and returns and names & easydict and node.name not in names:
            yield Definition(file, node.name, node.lineno)


def _opens(call: ast.Call, parameters: set[str]) -> bool:
    """`open(parameter)`, `Path(parameter).open()`, `parameter.read_text()` and the like."""
    if last_name(call.func) not in ("open", "read_text", "read_bytes"):
        return False
    given = [*call.args, *([call.func.value] if isinstance(call.func, ast.Attribute) else [])]
    return any(name.id in parameters for part in given for name in inside(part, ast.Name))
