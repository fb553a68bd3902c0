"""A codebase as syntax trees, with what a name in one file means in another. Nothing of it is imported."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from ...errors import PatchError
from ...patching.placing import definitions
from ...patching.source import bare

Node = tuple[str, str]
"""(file, qualified name of a function or class in it); the name is empty for the file's own top level."""

_SKIPPED = {"__pycache__", "node_modules", "site-packages", "build", "dist", "venv", "env", "experiments", "data"}
_INSTALLERS = ("setup.py", "pyproject.toml")
_DEPTH = 6
_FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef


class Project:
    """The Python files below `root`, those of packages with an installer of their own left out.

    Marked lines of a patch are read as comments, so a patched codebase looks as it did before.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.trees: dict[str, ast.Module] = {}
        self.broken: dict[str, str] = {}
        for file in _python_files(root):
            try:
                data = (root / file).read_bytes()
                self.trees[file] = ast.parse(bare(data))
            except SyntaxError as error:
                self.broken[file] = f"{file}, line {error.lineno} is not valid Python ({error.msg})"
            except PatchError as error:
                self.broken[file] = str(error).partition(";")[0]
            except (OSError, ValueError) as error:
                self.broken[file] = f"{file} cannot be read ({error})"
        self._names: dict[str, dict[str, Node]] = {}
        self._modules: dict[str, dict[str, str]] = {}

    @cached_property
    def nodes(self) -> dict[Node, ast.AST]:
        """Every function and class, and every file's top level."""
        found: dict[Node, ast.AST] = {}
        for file, tree in self.trees.items():
            found[file, ""] = tree
            found.update(((file, name), node) for name, node in definitions(tree))
        return found

    def functions(self) -> Iterator[tuple[Node, ast.FunctionDef | ast.AsyncFunctionDef]]:
        yield from ((key, node) for key, node in self.nodes.items() if isinstance(node, _FUNCTION))

    def owner(self, node: Node) -> Node | None:
        """The class a method is in."""
        above = (node[0], node[1].rpartition(".")[0])
        return above if above[1] and isinstance(self.nodes.get(above), ast.ClassDef) else None

    def resolve(self, file: str, expression: ast.expr, within: Node | None = None) -> Node | None:
        """What a name (or dotted name) in `file` refers to, if that is a definition of this project."""
        if isinstance(expression, ast.Name):
            return self._resolve(file, expression.id)
        if not isinstance(expression, ast.Attribute):
            return None
        dotted = ast.unparse(expression)
        if dotted.startswith("self.") and within and (owner := self.owner(within)):
            method = (file, f"{owner[1]}.{expression.attr}")
            return method if method in self.nodes else None
        module = self._imports(file)[1].get(dotted.rpartition(".")[0])
        return self._resolve(module, expression.attr) if module else None

    def uses(self, node: Node) -> set[Node]:
        """Definitions that a function's own code refers to, called or not."""
        file, tree = node[0], self.nodes[node]
        if isinstance(tree, ast.ClassDef):
            return {key for key in self.nodes if key[0] == file and self.owner(key) == node}
        found = set()
        for inner in own_code(tree):
            if isinstance(inner, ast.Name | ast.Attribute) and isinstance(inner.ctx, ast.Load):
                target = self.resolve(file, inner, node)
                if target is not None and target not in self.nodes:
                    target = (target[0], "")  # a variable: what its file's top level makes of it
                if target is not None and target != node:
                    found.add(target)
            elif isinstance(inner, _FUNCTION) and node[1]:
                found.add((file, f"{node[1]}.{inner.name}"))
        return found & self.nodes.keys()

    def reachable(self, roots: set[Node], stop: set[Node]) -> set[Node]:
        """Everything that `roots` refer to, directly or not, without going into `stop`."""
        seen, todo = set(), [root for root in roots if root not in stop]
        while todo:
            node = todo.pop()
            if node not in seen:
                seen.add(node)
                todo += [used for used in self.uses(node) if used not in stop]
        return seen

    def has_module(self, file: str, dotted: str, level: int) -> bool:
        """Whether a module that `file` imports is a file of this project."""
        return self._find(file, dotted, level) is not None

    def _resolve(self, file: str, name: str) -> Node | None:
        return self._imports(file)[0].get(name)

    def _imports(self, file: str) -> tuple[dict[str, Node], dict[str, str]]:
        """(name -> definition, dotted name -> file of the module) as a file binds them."""
        if file in self._names:
            return self._names[file], self._modules[file]
        names: dict[str, Node] = {}
        modules: dict[str, str] = {}
        self._names[file], self._modules[file] = names, modules  # a circle of imports ends here
        tree = self.trees[file]
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    target = self._find(file, alias.name, 0)
                    if target:
                        modules[alias.asname or alias.name] = target
            elif isinstance(node, ast.ImportFrom):
                self._import_from(file, node, names, modules)
        for name, definition in definitions(tree):
            if "." not in name and isinstance(definition, _FUNCTION | ast.ClassDef):
                names[name] = (file, name)
        for statement in tree.body:
            if isinstance(statement, ast.Assign):
                names.update({t.id: (file, t.id) for t in statement.targets if isinstance(t, ast.Name)})
        return names, modules

    def _import_from(self, file: str, node: ast.ImportFrom, names: dict[str, Node], modules: dict[str, str]) -> None:
        source = self._find(file, node.module or "", node.level)
        for alias in node.names:
            inner = f"{node.module}.{alias.name}" if node.module else alias.name
            module = self._find(file, inner, node.level)
            if alias.name == "*" and source:
                names.update(self._imports(source)[0])
            elif module:
                modules[alias.asname or alias.name] = module
            elif source and (target := self._resolve(source, alias.name)):
                names[alias.asname or alias.name] = target

    def _find(self, file: str, dotted: str, level: int) -> str | None:
        """The file of a module, looked for beside the importing file and in the folders above it."""
        here = Path(file).parent
        bases = [here, *here.parents]
        if level:
            bases = bases[level - 1 : level]
        path = dotted.replace(".", "/")
        for base in bases:
            for candidate in (f"{path}.py", f"{path}/__init__.py") if path else ("__init__.py",):
                found = (base / candidate).as_posix()
                if found in self.trees and found != file:
                    return found
        return None


def own_code(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node of a function (or file) in the source's order, without the bodies of definitions within it."""
    for child in ast.iter_child_nodes(tree):
        yield child
        if not isinstance(child, _FUNCTION | ast.ClassDef):
            yield from own_code(child)


def line_of(node: ast.AST) -> int:
    return int(getattr(node, "lineno", 1))


def _python_files(root: Path) -> Iterator[str]:
    for folder, names, files in os.walk(root):
        here = Path(folder).relative_to(root)
        if here.parts and any(name in files for name in _INSTALLERS):
            names[:] = []
            continue
        deep = len(here.parts) >= _DEPTH
        names[:] = [] if deep else sorted(n for n in names if n not in _SKIPPED and not n.startswith("."))
        yield from ((here / file).as_posix() for file in sorted(files) if file.endswith(".py"))
