"""Hosts that choose their loss by a string in an if/elif chain (SnowflakeNet, Point-MAE, DCD).

The host's own code runs with a name it knows whenever the name is one of ours; the Chamfer it then builds or calls
is replaced where it is.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ...patching import Edit, Line
from . import chamfers
from .project import Node, Project, own_code
from .sites import SOURCE, Site


def find(project: Project, reached: set[Node], sites: set[Node]) -> Iterator[Site]:
    """Chains over a parameter, or over an attribute that the constructor sets."""
    done: set[tuple[Node, str]] = set()
    for node in sorted(reached):
        function = project.nodes[node]
        if not isinstance(function, ast.FunctionDef):
            continue
        for subject, known, line in chains_in(function, lambda body, at=node: _is_chamfer(project, at, body, sites)):
            if subject in [argument.arg for argument in function.args.args]:
                arguments = f'("{subject}", "{known}")'
                edit: Edit | Line = Edit(node[0], node[1], "lets_loss_through", SOURCE, False, arguments)
                yield Site(node[0], line, node[1], f"loss chosen by the string {subject}, known {known!r}", edit)
            elif subject.startswith("self.") and (owner := project.owner(node)):
                init = (owner[0], f"{owner[1]}.__init__")
                text = _named(project, init, subject, known)
                if text and (init, subject) not in done:
                    done.add((init, subject))
                    edit = Line(init[0], init[1], subject, text, "host_loss_name", SOURCE)
                    yield Site(node[0], line, node[1], f"loss chosen by the string {subject}, known {known!r}", edit)


def chains_in(function: ast.FunctionDef, is_chamfer) -> Iterator[tuple[str, str, int]]:  # type: ignore[no-untyped-def]
    """(what is compared, a name for which the host builds a Chamfer, line) of every if/elif chain over strings.

    is_chamfer(statements): whether a branch does that.
    """
    seen: set[int] = set()
    for node in own_code(function):
        if not isinstance(node, ast.If) or id(node) in seen:
            continue
        branches, at = [], node
        while True:
            seen.add(id(at))
            branches.append((_comparison(at.test), at.body))
            if len(at.orelse) == 1 and isinstance(at.orelse[0], ast.If):
                at = at.orelse[0]
            else:
                break
        subjects = {compared[0] for compared, _ in branches if compared}
        if len(branches) < 2 or len(subjects) != 1 or not all(compared for compared, _ in branches):
            continue
        known = next((compared[1] for compared, body in branches if compared and is_chamfer(body)), None)
        if known is not None:
            yield subjects.pop(), known, node.lineno


def builds_chamfer(body: list[ast.stmt]) -> bool:
    """Whether statements assign a new Chamfer object."""
    return any(isinstance(n, ast.Assign) and chamfers.makes_chamfer(n.value) for s in body for n in ast.walk(s))


def _comparison(test: ast.expr) -> tuple[str, str] | None:
    if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq):
        right = test.comparators[0]
        if isinstance(right, ast.Constant) and isinstance(right.value, str):
            return ast.unparse(test.left), right.value
    return None


def _is_chamfer(project: Project, node: Node, body: list[ast.stmt], sites: set[Node]) -> bool:
    """A branch that refers to a site and to no other distance function of the host, or makes a Chamfer object."""
    if builds_chamfer(body):
        return True
    used = [
        target
        for statement in body
        for n in ast.walk(statement)
        if isinstance(n, ast.Name | ast.Attribute) and (target := project.resolve(node[0], n, node)) is not None
    ]
    other = [target for target in used if target not in sites and _is_distance(project, target)]
    return any(target in sites for target in used) and not other


def _is_distance(project: Project, node: Node) -> bool:
    """Another function of the host that measures two clouds, such as an EMD."""
    reading = chamfers.read(project, node) if node in project.nodes else None
    return isinstance(project.nodes.get(node), ast.FunctionDef) and (
        reading is None or reading.kind == chamfers.INDICES
    )


def _named(project: Project, init: Node, subject: str, known: str) -> str:
    """The line that lets our names through, behind the assignment in the constructor."""
    function = project.nodes.get(init)
    if not isinstance(function, ast.FunctionDef):
        return ""
    for statement in own_code(function):
        if isinstance(statement, ast.Assign) and subject in [ast.unparse(target) for target in statement.targets]:
            config = statement.value
            owner = f", opts={ast.unparse(config.value)}" if isinstance(config, ast.Attribute) else ", self"
            return f'{subject} = host_loss_name({subject}, "{known}"{owner})'
    return ""
