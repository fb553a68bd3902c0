"""Hosts whose training keeps a Chamfer object in a variable or attribute that gives one number (GRNet's own code)."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ...patching import Line
from . import chamfers
from .functions import is_forward
from .project import Node, Project, own_code
from .sites import SOURCE, Kept, Refused, Site


def find(
    project: Project, reached: set[Node], training: set[Node], taken: set[Node]
) -> Iterator[Site | Kept | Refused]:
    """Chamfer objects that functions on the way of training make for themselves and call.

    taken: functions whose value is replaced as a whole.
    """
    for node in sorted(reached - taken):
        if not isinstance(project.nodes[node], ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for name, line in _made_in(project, node).items():
            users = _users(project, node, name) if name.startswith("self.") else [node]
            if not name.startswith("self.") and node not in training:
                continue
            calls = [call for user in users for call in _calls(project, user, name)]
            if not calls or all(user in taken for user in users if list(_calls(project, user, name))):
                continue
            file, scope = node
            shown = f"{scope}, {name}"
            if any(is_forward(project, user) and _feeds_on(project, user, name) for user in users):
                continue  # a network's own use of neighbours
            if raw := next((call for call in calls if _unpacked(project, users, call)), None):
                why = f"gives distances or indices that the code goes on with (line {raw.lineno})"
                yield Refused(file, raw.lineno, shown, why)
            else:
                edit = Line(file, scope, name, f"{name} = training_loss({name})", "training_loss", SOURCE)
                yield Site(file, line, shown, "Chamfer object, one number", edit)


def at_top_level(project: Project, training: set[Node]) -> Iterator[Refused]:
    """Objects that a script makes and calls outside of any function: no line can be put there safely."""
    for node in sorted(training):
        names = {name: made for name, made in chamfers.chamfer_objects(project, node).items() if "." not in name}
        local = _made_in(project, node) if node[1] else {}
        for inner in own_code(project.nodes[node]):
            name = ast.unparse(inner.func) if isinstance(inner, ast.Call) else ""
            if name in names and name not in local and isinstance(inner, ast.Call):
                if _unpacked(project, [node], inner):
                    continue
                by_hand = (f"from {SOURCE} import training_loss", f"{name} = training_loss({name})")
                why = "is made outside of any function"
                yield Refused(node[0], inner.lineno, name, why, by_hand)
                break


def _made_in(project: Project, node: Node) -> dict[str, int]:
    """Name -> line of its last plain assignment of a Chamfer object in a function."""
    return {
        ast.unparse(statement.targets[0]): statement.lineno
        for statement in own_code(project.nodes[node])
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1 and chamfers.makes_chamfer(statement.value)
    }


def _users(project: Project, node: Node, name: str) -> list[Node]:
    """The methods of the class around a method."""
    owner = project.owner(node)
    return [key for key in project.nodes if owner and project.owner(key) == owner]


def _calls(project: Project, node: Node, name: str) -> Iterator[ast.Call]:
    for inner in own_code(project.nodes[node]):
        if isinstance(inner, ast.Call) and ast.unparse(inner.func) == name and len(inner.args) >= 2:
            yield inner


def _unpacked(project: Project, users: list[Node], call: ast.Call) -> bool:
    """Whether a call's result is taken apart: `a, b = x(p, q)`, `x(p, q)[0]`."""
    for user in users:
        for inner in own_code(project.nodes[user]):
            if isinstance(inner, ast.Assign) and inner.value is call:
                return isinstance(inner.targets[0], ast.Tuple | ast.List)
            if isinstance(inner, ast.Subscript) and inner.value is call:
                return True
    return False


def _feeds_on(project: Project, node: Node, name: str) -> bool:
    """Whether a forward takes the object's result apart, as networks do that use neighbours."""
    return any(_unpacked(project, [node], call) for call in _calls(project, node, name))
