"""The parts of a PoinTr-style codebase, as records, and how each is found in a syntax tree."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..project import Definition, dotted, inside, last_name
from .stages import LossSite, sites_of


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


def builders_in(file: str, tree: ast.Module, registry: str) -> Iterator[Definition]:
    """Top-level functions that return `<registry>.build(...)`."""
    for node in tree.body:
        returned = [n.value for n in inside(node, ast.Return)] if isinstance(node, ast.FunctionDef) else []
        made = [value.func for value in returned if isinstance(value, ast.Call)]
        if any(isinstance(f, ast.Attribute) and f.attr == "build" and last_name(f.value) == registry for f in made):
            yield Definition(file, node.name, node.lineno)  # type: ignore[attr-defined]


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
    config = [argument.arg for argument in init.args.args][1:2]
    plain = [dotted(statement.value).split(".") for statement in init.body if isinstance(statement, ast.Assign)]
    return tuple(dict.fromkeys(name[1] for name in plain if len(name) == 2 and name[:1] == config))


def _registers(decorator: ast.expr, registry: str) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return (
        isinstance(called, ast.Attribute) and called.attr == "register_module" and last_name(called.value) == registry
    )


def readers_in(file: str, tree: ast.Module) -> Iterator[Definition]:
    """Top-level functions that open the file named by a parameter, call `yaml.*load*` and EasyDict, and return.

    (PoinTr's merging helper loads YAML too, but calls itself; its KITTI script reads one fixed file.)
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
