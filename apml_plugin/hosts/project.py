"""A codebase as syntax trees, and what a name in one file means in another. Nothing of it is imported."""

from __future__ import annotations

import ast
import itertools
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from ..errors import HostError
from ..files import sources
from ..patching.source import bare

T = TypeVar("T", bound=ast.AST)
Node = tuple[str, str]
"""(file, qualified name of a function or class); an empty name is the top level of the file.

An empty file is for what the project imports from elsewhere: ("", "pytorch3d.loss.chamfer_distance").
"""

_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
_DEFINITION = (*_FUNCTION, ast.ClassDef)
_PASSED = (ast.expr_context, ast.operator, ast.cmpop, ast.boolop, ast.unaryop)
# Methods that many objects have: a call of one on an unknown object does not tell its class.
_COMMON = {name for kind in (dict, list, str, set, object) for name in dir(kind)} | {
    "forward", "train", "eval", "cuda", "cpu", "to", "step", "backward", "mean", "sum", "min", "max", "view", "reset",
    "reshape", "item", "detach", "load", "save", "apply", "parameters", "state_dict", "log", "avg", "val", "size",
}  # fmt: skip


MOST_FILES = 2000
"""The largest codebases we know have 300; memory and time grow faster than the number of files."""


@dataclass(frozen=True)
class Definition:
    """A function or class: file relative to the host's root (forward slashes), qualified name, line."""

    file: str
    name: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}: {self.name}"


class Project:
    """The Python files below `root`. Lines that a patch inserted count as comments, so a patched codebase is the same.

    Attributes:
        trees: file -> its syntax tree.
        text: file -> its bytes.
        nodes: the syntax tree of each definition, and of each file.
        code: the syntax nodes of each definition in source order, without those of definitions inside it.
        duplicates: names that are defined more than once.
        links: file that is a link -> the file in the project that it points to, which alone is read.
        broken: file -> why it was not read.
        count: how many files there are.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.trees: dict[str, ast.Module] = {}
        self.text: dict[str, bytes] = {}
        self.nodes: dict[Node, ast.AST] = {}
        self.code: dict[Node, list[ast.AST]] = {}
        self.duplicates: set[Node] = set()
        self.broken: dict[str, str] = {}
        self.links: dict[str, str] = {}
        self._bound: dict[str, dict[str, Node]] = {}
        self._used: dict[Node, tuple[set[Node], set[str]]] = {}
        self._mros: dict[Node, list[Node]] = {}
        files = list(itertools.islice(sources.python_files(root), MOST_FILES + 1))
        if len(files) > MOST_FILES:
            raise HostError(f"{root} has more than {MOST_FILES} Python files; give the folder of one codebase")
        home = os.path.realpath(root)
        for file in files:
            target = Path(os.path.relpath(os.path.realpath(os.path.join(root, file)), home)).as_posix()
            if target != file and target in files:
                self.links[file] = target
                continue
            try:
                self.text[file] = bare(sources.read_source(root, file))
                self.trees[file] = sources.parse(self.text[file])
                self._scan(file)
            except (OSError, SyntaxError) as error:
                self.broken[file] = file + sources.why(error)
        self.count = len(self.trees) + len(self.broken)

    def _scan(self, file: str) -> None:
        """Adds the definitions in a file to `nodes` and `code`."""
        tree = self.nodes[file, ""] = self.trees[file]
        self.code[file, ""] = []
        todo: list[tuple[ast.AST, list[ast.AST], str]] = [(tree, self.code[file, ""], "")]
        while todo:
            node, mine, prefix = todo.pop()
            mine.append(node)
            if isinstance(node, _DEFINITION):
                key = (file, prefix + node.name)
                self.duplicates |= {key} & self.nodes.keys()
                self.nodes[key], self.code[key] = node, []
                mine, prefix = self.code[key], f"{key[1]}."
            children = [child for child in ast.iter_child_nodes(node) if not isinstance(child, _PASSED)]
            todo += [(child, mine, prefix) for child in reversed(children)]

    @cached_property
    def members(self) -> dict[Node, list[Node]]:
        """Class -> its methods and inner classes."""
        found: dict[Node, list[Node]] = {}
        for node in self.nodes:
            if owner := self.owner(node):
                found.setdefault(owner, []).append(node)
        return found

    @cached_property
    def methods(self) -> dict[str, list[Node]]:
        """Name -> the methods with that name, but for common names."""
        found: dict[str, list[Node]] = {}
        for nodes in self.members.values():
            for node in nodes:
                name = node[1].rpartition(".")[2]
                if name not in _COMMON and isinstance(self.nodes[node], _FUNCTION):
                    found.setdefault(name, []).append(node)
        return found

    def owner(self, node: Node) -> Node | None:
        """The class that a method is in."""
        above = (node[0], node[1].rpartition(".")[0])
        return above if above[1] and isinstance(self.nodes.get(above), ast.ClassDef) else None

    def bases(self, node: Node) -> list[Node]:
        """A class of the project and those of its bases that are in the project, too."""
        if node not in self._mros:
            self._mros[node] = [node]  # ends a circle
            tree = self.nodes[node]
            for base in tree.bases if isinstance(tree, ast.ClassDef) else ():
                target = self.resolve(node[0], base)
                if target and isinstance(self.nodes.get(target), ast.ClassDef):
                    self._mros[node] += [b for b in self.bases(target) if b not in self._mros[node]]
        return self._mros[node]

    def method(self, owner: Node, name: str) -> Node | None:
        found = ((base[0], f"{base[1]}.{name}") for base in self.bases(owner))
        return next((node for node in found if node in self.nodes), None)

    def resolve(self, file: str, expression: ast.expr, within: Node | None = None) -> Node | None:
        """What a (dotted) name in `file` refers to: a definition or file of this project, or an outside name."""
        name = dotted(expression)
        if not name:
            return None
        parts = name.split(".")
        if parts[0] in ("self", "cls") and within:
            owner = next((o for o in self.around(within) if isinstance(self.nodes.get(o), ast.ClassDef)), None)
            return self.method(owner, parts[1]) if owner and len(parts) == 2 else None
        for around in self.around(within) if within and len(parts) == 1 else ():
            inner = (file, f"{around[1]}.{name}")
            if inner in self.nodes and isinstance(self.nodes[around], _FUNCTION):
                return inner
        bound = self.bound(file)
        for count in range(len(parts), 0, -1):
            target = bound.get(".".join(parts[:count]))
            if target:
                for part in parts[count:]:
                    target = self._member(target, part) if target else None
                return target
        return None

    def around(self, node: Node) -> Iterator[Node]:
        """A definition and those that it is in, the innermost first."""
        name = node[1]
        while name:
            yield node[0], name
            name = name.rpartition(".")[0]

    def _member(self, target: Node, name: str) -> Node | None:
        file, inside = target
        if not file:
            return "", f"{inside}.{name}"
        if inside:
            return self.method(target, name) if isinstance(self.nodes.get(target), ast.ClassDef) else None
        found = self.bound(file).get(name)
        module = None if found else self.module(file, name, 1) if file.endswith("__init__.py") else None
        return (module, "") if module else found

    def uses(self, node: Node) -> tuple[set[Node], set[str]]:
        """(definitions that the code of a definition refers to, names of methods of unknown objects in it)."""
        if node not in self._used:
            found, unknown = set(), set()
            if isinstance(self.nodes[node], ast.ClassDef):
                found |= {*self.members.get(node, ()), *self.bases(node)}
            for inner in self.code[node]:
                if isinstance(inner, ast.Name | ast.Attribute) and isinstance(inner.ctx, ast.Load):
                    target = self.resolve(node[0], inner, node)
                    if target is None and isinstance(inner, ast.Attribute):
                        unknown.add(inner.attr)
                    elif target and target[0]:
                        # a variable: the top level of its file makes it
                        found.add(target if target in self.nodes else (target[0], ""))
                elif isinstance(inner, _FUNCTION) and node[1]:
                    found.add((node[0], f"{node[1]}.{inner.name}"))
            self._used[node] = (found & self.nodes.keys()) - {node}, unknown & self.methods.keys()
        return self._used[node]

    def reachable(self, roots: set[Node], stop: set[Node], by_name: bool = False) -> set[Node]:
        """Everything that `roots` refer to, directly or not, without entering `stop`.

        by_name: whether a method call of an unknown object refers to every method with that name.
        """
        seen, todo = set(), [root for root in roots if root not in stop]
        while todo:
            node = todo.pop()
            if node in seen:
                continue
            seen.add(node)
            found, unknown = self.uses(node)
            methods = [method for name in unknown if by_name for method in self.methods[name]]
            todo += [used for used in (*found, *methods) if used not in stop]
        return seen

    def bound(self, file: str) -> dict[str, Node]:
        """What the (dotted) names refer to that a file imports, defines or assigns at its top level."""
        if file in self._bound:
            return self._bound[file]
        names = self._bound[file] = {}  # ends a circle
        for node in (n for at in self.definitions[file] for n in self.code[at]):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    target = self.module(file, alias.name, 0)
                    names[alias.asname or alias.name] = (target, "") if target else ("", alias.name)
            elif isinstance(node, ast.ImportFrom):
                self._import_from(file, node, names)
        names.update({name: (file, name) for _, name in self.definitions[file] if name and "." not in name})
        for statement in self.trees[file].body:
            if isinstance(statement, ast.Assign) and not isinstance(statement.value, ast.Constant):
                names.update({t.id: (file, t.id) for t in statement.targets if isinstance(t, ast.Name)})
        return names

    @cached_property
    def definitions(self) -> dict[str, list[Node]]:
        """File -> the definitions in it."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            found.setdefault(node[0], []).append(node)
        return found

    @cached_property
    def imports(self) -> dict[str, set[str]]:
        """File -> the other files of the project that it imports something from."""
        return {file: {at for at, _ in self.bound(file).values()} - {"", file} for file in self.trees}

    @cached_property
    def imported(self) -> set[str]:
        """The files that scripts, which are the files outside of packages, import directly or not."""
        seen: set[str] = set()
        todo = [file for file in self.trees if f"{file.rpartition('/')[0]}/__init__.py".lstrip("/") not in self.trees]
        while todo:
            found = self.imports[todo.pop()] - seen
            seen |= found
            todo += found
        return seen

    def _import_from(self, file: str, node: ast.ImportFrom, names: dict[str, Node]) -> None:
        source = self.module(file, node.module or "", node.level)
        for alias in node.names:
            inner, name = f"{node.module}.{alias.name}" if node.module else alias.name, alias.asname or alias.name
            if alias.name == "*" and source:
                names.update(self.bound(source))
            elif module := self.module(file, inner, node.level):
                names[name] = (module, "")
            elif source and (target := self.bound(source).get(alias.name)):
                names[name] = target
            elif not source and not node.level:
                names[name] = ("", inner)

    def module(self, file: str, name: str, level: int) -> str | None:
        """The file of a module: beside the importing file, in a folder above, or the only one with such an end."""
        here = Path(file).parent
        bases = [here, *here.parents]
        path = name.replace(".", "/")
        for base in bases[level - 1 : level] if level else bases:
            for candidate in (f"{path}.py", f"{path}/__init__.py") if path else ("__init__.py",):
                found = (base / candidate).as_posix()
                found = self.links.get(found, found)
                if found in self.trees and found != file:
                    return found
        if level or name.partition(".")[0] in sys.stdlib_module_names:
            return None
        others = [found for found in self._endings.get(path, ()) if found != file]
        return others[0] if len(others) == 1 else None

    @cached_property
    def _endings(self) -> dict[str, list[str]]:
        """End of a path -> files, for what `sys.path.append("../utils")` makes importable."""
        found: dict[str, list[str]] = {}
        for file in (*self.trees, *self.links):
            parts = file.removesuffix(".py").removesuffix("/__init__").split("/")
            for i in range(len(parts)):
                found.setdefault("/".join(parts[i:]), []).append(self.links.get(file, file))
        return found


def dotted(expression: ast.AST) -> str:
    """`a.b.c` for a name or attributes of a name, else an empty text."""
    parts: list[str] = []
    while isinstance(expression, ast.Attribute):
        parts.append(expression.attr)
        expression = expression.value
    return ".".join([expression.id, *reversed(parts)]) if isinstance(expression, ast.Name) else ""


def inside(tree: ast.AST, kind: type[T]) -> Iterator[T]:
    """The nodes of one kind in a tree."""
    return (node for node in ast.walk(tree) if isinstance(node, kind))


def last_name(expression: ast.AST) -> str:
    """`c` for `a.b.c` and `f().c`, `a` for `a`, else an empty text."""
    if isinstance(expression, ast.Attribute):
        return expression.attr
    return expression.id if isinstance(expression, ast.Name) else ""


def last(name: str) -> str:
    """`c` of the text "a.b.c"."""
    return name.rpartition(".")[2]


def parameters(function: ast.AST | None) -> list[str]:
    """The names of a function's positional parameters, without `self`."""
    if not isinstance(function, _FUNCTION):
        return []
    names = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names
