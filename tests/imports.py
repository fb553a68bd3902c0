"""What every module of the package imports from the package, read from its syntax tree.

Imports inside functions count: they run, too. Imports under ``TYPE_CHECKING`` do not run and do not count.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).resolve().parents[1] / "apml_plugin"


class Import(NamedTuple):
    importer: str
    """Module that has the import statement, without the leading ``apml_plugin.``; the package itself is ''."""
    imported: str
    place: str
    """file:line"""


def modules(package: Path = PACKAGE) -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@functools.cache
def imports(package: Path = PACKAGE) -> list[Import]:
    known = modules(package)
    return [
        Import(_short(name), _short(target), f"{path.relative_to(package.parent)}:{line}")
        for name, path in known.items()
        for target, line in _targets(name, path, known)
        if target.split(".")[0] == package.name and target != name
    ]


def circles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """The groups of modules that import each other, directly or through others (strongly connected components)."""
    reach: dict[str, set[str]] = {}
    for start in edges:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for target in edges.get(waiting.pop(), set()) - seen:
                seen.add(target)
                waiting.append(target)
        reach[start] = seen
    groups = {frozenset(m for m in reach[start] if start in reach.get(m, set())) for start in edges}
    return sorted(sorted(group) for group in groups if len(group) > 1)


def _short(name: str) -> str:
    return name.partition(".")[2]


def _targets(name: str, path: Path, known: Mapping[str, Path]) -> Iterator[tuple[str, int]]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    tree = ast.parse(path.read_text())
    idle = {id(node) for block in ast.walk(tree) if _is_type_checking(block) for node in _inside(block)}
    for node in ast.walk(tree):
        if id(node) in idle:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            for alias in node.names:
                full = f"{module}.{alias.name}"
                yield full if full in known else module, node.lineno


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).rpartition(".")[2] == "TYPE_CHECKING"


def _inside(block: ast.AST) -> Iterator[ast.AST]:
    assert isinstance(block, ast.If)
    for statement in block.body:
        yield from ast.walk(statement)
