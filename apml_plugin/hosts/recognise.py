"""Telling a PoinTr-style codebase by its structure, never by a folder's name, without importing any of it.

Three things make one: a registry (`X = Registry(...)`) and a function that returns `X.build(...)`; a function that
loads a YAML into an EasyDict; model classes registered in X that define `build_loss_func` or `get_loss`.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import HostError
from .stages import LossSite, sites_of

_SKIPPED = {
    "__pycache__",
    "node_modules",
    "site-packages",
    "build",
    "dist",
    "venv",
    "env",
    "experiments",
    "data",
}
_DEPTH = 4


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
    """A model class the host can build, and where its training loss lives."""

    definition: Definition
    sites: tuple[LossSite, ...]

    @property
    def name(self) -> str:
        return self.definition.name

    @property
    def stages(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(stage for site in self.sites for stage in site.stages))


@dataclass(frozen=True)
class Host:
    """A recognised codebase. builder: the function that builds models; reader: the one that reads a YAML."""

    root: Path
    builder: Definition
    reader: Definition
    models: tuple[HostModel, ...]

    def model(self, name: str) -> HostModel:
        """The model called `name`. Raises HostError listing the models there are."""
        for model in self.models:
            if model.name == name:
                return model
        raise HostError(f"{self.root} has no model '{name}'; it has {', '.join(m.name for m in self.models)}")


def recognise(path: str | os.PathLike[str]) -> Host:
    """Recognise the PoinTr-style codebase at `path`.

    Raises HostError saying what was looked for, and where, when a part is missing or cannot be told apart.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise HostError(f"{root} is not a folder; give the root of the clone (the folder with its main.py)")
    root = root.resolve()
    files = {file: tree for file in _python_files(root) if (tree := _parsed(root / file)) is not None}
    builder, models = _builder_and_models({f: t for f, t in files.items() if f.count("/") < 2})
    reader = _nearest([d for f, tree in files.items() if f.count("/") < 2 for d in _readers(f, tree)])
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
            f"{root} is not a PoinTr-style codebase this plugin knows. Looked through {len(files)} Python files for "
            f"{'; and for '.join(missing)}: not found. Give the root of the clone (the folder with its main.py)"
            f"{_hint(files)}"
        )
    return Host(root, builder, reader, models)


def find_root(start: str | os.PathLike[str]) -> Host | None:
    """The host that a file (a YAML, say) lies in: the nearest folder upwards that is one, or None."""
    here = Path(start).expanduser().resolve()
    for folder in [here, *here.parents] if here.is_dir() else here.parents:
        if folder == folder.parent:
            break
        if not any(entry.is_dir() for entry in folder.iterdir()) or not any(folder.glob("*.py")):
            continue
        try:
            return recognise(folder)
        except HostError:
            continue
    return None


def _python_files(root: Path) -> Iterator[str]:
    for folder, names, files in os.walk(root):
        here = Path(folder).relative_to(root)
        deep = len(here.parts) >= _DEPTH
        names[:] = [] if deep else sorted(n for n in names if n not in _SKIPPED and not n.startswith("."))
        yield from ((here / file).as_posix() for file in sorted(files) if file.endswith(".py"))


def _parsed(path: Path) -> ast.Module | None:
    """The tree of a file that could matter, else None: a stray file that does not parse is no reason to stop."""
    try:
        data = path.read_bytes()
        if not any(word in data for word in (b"Registry", b".build(", b"register_module", b"yaml")):
            return None
        return ast.parse(data)
    except (OSError, SyntaxError, ValueError):
        return None


def _hint(files: dict[str, ast.Module]) -> str:
    """Where a clone may lie when the folder above it was given."""
    deep = {
        parts[0]
        for file, tree in files.items()
        if len(parts := file.split("/")) > 2 and any(_readers(file, tree))
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
        and _name(node.value.func) == "Registry"
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _builder_and_models(files: dict[str, ast.Module]) -> tuple[Definition | None, tuple[HostModel, ...]]:
    for registry in sorted(_registries(files)):
        models = [m for file, tree in files.items() for m in _models(file, tree, registry)]
        builders = [d for file, tree in files.items() for d in _builders(file, tree, registry)]
        if models and builders:
            return _nearest(builders), tuple(sorted(models, key=lambda m: m.name))
    return None, ()


def _builders(file: str, tree: ast.Module, registry: str) -> Iterator[Definition]:
    """Top-level functions that return `<registry>.build(...)`."""
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef):
            continue
        for inner in ast.walk(node):
            call = inner.value if isinstance(inner, ast.Return) else None
            made = call.func if isinstance(call, ast.Call) else None
            if isinstance(made, ast.Attribute) and made.attr == "build" and _name(made.value) == registry:
                yield Definition(file, node.name, node.lineno)
                break


def _models(file: str, tree: ast.Module, registry: str) -> Iterator[HostModel]:
    for node in tree.body:
        if not isinstance(node, ast.ClassDef) or not any(
            _registers(d, registry) for d in node.decorator_list
        ):
            continue
        methods = {inner.name: inner for inner in node.body if isinstance(inner, ast.FunctionDef)}
        build, get_loss = methods.get("build_loss_func"), methods.get("get_loss")
        if build or get_loss:
            yield HostModel(Definition(file, node.name, node.lineno), sites_of([node.name], build, get_loss))


def _registers(decorator: ast.expr, registry: str) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return (
        isinstance(called, ast.Attribute)
        and called.attr == "register_module"
        and _name(called.value) == registry
    )


def _readers(file: str, tree: ast.Module) -> Iterator[Definition]:
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
        loads = any(
            isinstance(f, ast.Attribute) and "load" in f.attr and _name(f.value) == "yaml" for f in calls
        )
        names = {_name(f) for f in calls}
        returns = any(isinstance(inner, ast.Return) and inner.value for inner in ast.walk(node))
        if opens and loads and returns and names & easydict and node.name not in names:
            yield Definition(file, node.name, node.lineno)


def _opens(call: ast.Call, parameters: set[str]) -> bool:
    """`open(parameter)`, `Path(parameter).open()`, `parameter.read_text()` and the like."""
    if _name(call.func) not in ("open", "read_text", "read_bytes"):
        return False
    inner: list[ast.AST] = [*call.args, *([call.func.value] if isinstance(call.func, ast.Attribute) else [])]
    return any(isinstance(n, ast.Name) and n.id in parameters for start in inner for n in ast.walk(start))


def _nearest(found: list[Definition]) -> Definition | None:
    """The one nearest to the root. Raises HostError if two are equally near."""
    if not found:
        return None
    found = sorted(found, key=lambda d: d.file.count("/"))
    rivals = [d for d in found if d.file.count("/") == found[0].file.count("/")]
    if len(rivals) > 1:
        raise HostError("cannot tell which of these to patch: " + ", ".join(str(d) for d in rivals))
    return found[0]


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
