"""The parts of a PoinTr-style codebase, as records, and how each is found in a syntax tree."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...errors import HostError
from .stages import LossSite, last_name, sites_of


@dataclass(frozen=True)
class Definition:
    """A function or class: file relative to the host's root (forward slashes), qualified name, line."""

    file: str
    name: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}: {self.name}"


@dataclass(frozen=True)
class HostModel:
    """A model class the host can build, where its training loss lives, and the config keys it cannot do without.

    makes: whether it makes a Chamfer object in any of its methods, so that one hangs on it when it is built.
    chain: (parameter, a name it knows) of a `build_loss_func` that chooses by a string and stops at any other.
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
    """A recognised codebase. builder: the function that builds models; reader: the one that reads a YAML.

    own_loss: where it reads entries of a top-level ``loss:`` that is its own.
    """

    root: Path
    builder: Definition
    reader: Definition
    models: tuple[HostModel, ...]
    own_loss: tuple[str, ...] = ()

    def __str__(self) -> str:
        names = ", ".join(model.name for model in self.models)
        return f"PoinTr-style host at {self.root} (models {names}; built in {self.builder}; YAML read in {self.reader})"

    def model(self, name: str) -> HostModel:
        """The model called `name`. Raises HostError listing the models there are."""
        for model in self.models:
            if model.name == name:
                return model
        raise HostError(f"{self.root} has no model '{name}'; it has {', '.join(m.name for m in self.models)}")


def builders_in(file: str, tree: ast.Module, registry: str) -> Iterator[Definition]:
    """Top-level functions that return `<registry>.build(...)`."""
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef):
            continue
        for inner in ast.walk(node):
            call = inner.value if isinstance(inner, ast.Return) else None
            made = call.func if isinstance(call, ast.Call) else None
            if isinstance(made, ast.Attribute) and made.attr == "build" and last_name(made.value) == registry:
                yield Definition(file, node.name, node.lineno)
                break


def models_in(file: str, tree: ast.Module, registry: str) -> Iterator[HostModel]:
    for node in tree.body:
        if not isinstance(node, ast.ClassDef) or not any(_registers(d, registry) for d in node.decorator_list):
            continue
        methods = {inner.name: inner for inner in node.body if isinstance(inner, ast.FunctionDef)}
        build, get_loss = methods.get("build_loss_func"), methods.get("get_loss")
        made = any("chamfer" in last_name(n.func).lower() for n in ast.walk(node) if isinstance(n, ast.Call))
        if build or get_loss or made:
            reads = _config_reads(methods["__init__"]) if "__init__" in methods else ()
            place, sites = Definition(file, node.name, node.lineno), sites_of([node.name], build, get_loss)
            yield HostModel(place, sites, reads, chain_of(build) if build else None, made)


def chain_of(build: ast.FunctionDef) -> tuple[str, str] | None:
    """(parameter, a name for which a Chamfer is built) of an if/elif chain over strings in `build_loss_func`."""
    from ..loops.chains import builds_chamfer, chains_in

    parameters = [argument.arg for argument in build.args.args]
    found = [(subject, known) for subject, known, _ in chains_in(build, builds_chamfer) if subject in parameters]
    return found[0] if found else None


def _config_reads(init: ast.FunctionDef) -> tuple[str, ...]:
    """Names read as `config.name` by assignments that are not inside an if, loop or try."""
    if len(init.args.args) < 2:
        return ()
    config = init.args.args[1].arg
    plain = [statement.value for statement in init.body if isinstance(statement, ast.Assign)]
    return tuple(
        dict.fromkeys(
            node.attr
            for node in plain
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == config
        )
    )


def _registers(decorator: ast.expr, registry: str) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return (
        isinstance(called, ast.Attribute) and called.attr == "register_module" and last_name(called.value) == registry
    )


def readers_in(file: str, tree: ast.Module) -> Iterator[Definition]:
    """Top-level functions that open the file named by a parameter, call `yaml.*load*` and EasyDict, and return.

    (PoinTr's merging helper loads YAML too, but calls itself; its KITTI script reads one fixed file.)
    """
    easydict = {"EasyDict"} | {
        alias.asname
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module == "easydict"
        for alias in node.names
        if alias.asname
    }
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef):
            continue
        made = [inner for inner in ast.walk(node) if isinstance(inner, ast.Call)]
        parameters = {argument.arg for argument in node.args.args}
        opens = any(_opens(call, parameters) for call in made)
        calls = [call.func for call in made]
        loads = any(isinstance(f, ast.Attribute) and "load" in f.attr and last_name(f.value) == "yaml" for f in calls)
        names = {last_name(f) for f in calls}
        returns = any(isinstance(inner, ast.Return) and inner.value for inner in ast.walk(node))
        if opens and loads and returns and names & easydict and node.name not in names:
            yield Definition(file, node.name, node.lineno)


def _opens(call: ast.Call, parameters: set[str]) -> bool:
    """`open(parameter)`, `Path(parameter).open()`, `parameter.read_text()` and the like."""
    if last_name(call.func) not in ("open", "read_text", "read_bytes"):
        return False
    inner: list[ast.AST] = [*call.args, *([call.func.value] if isinstance(call.func, ast.Attribute) else [])]
    return any(isinstance(n, ast.Name) and n.id in parameters for start in inner for n in ast.walk(start))
