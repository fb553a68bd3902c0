"""Hosts that choose their loss by a string in an if/elif chain, as SnowflakeNet, Point-MAE and DCD do.

If the string names one of our losses, the host's code gets a name that it knows instead. The Chamfer that it then
builds or calls is replaced like any other.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from ...patching import Line, decorator
from ..project import Node, Project, dotted, inside
from .chamfers import names_chamfer
from .functions import VALUE_AND_MORE
from .losses import Search
from .phases import by_name, is_evaluation
from .records import Site, line_after

_LOSS = re.compile(r"loss|criterion|chamfer|(^|[ _])cd(_|l?\d|$)", re.IGNORECASE)


def find(search: Search) -> Iterator[Site]:
    """The chains that choose a training loss by a parameter, or by an attribute that the constructor sets.

    A string that chooses a metric, or a way to compute one, stays as it is.
    """
    project, done = search.project, set()
    for node in sorted(search.reached):
        function = project.nodes[node]
        compared = (isinstance(n, ast.If) and _comparison(n.test) for n in project.code[node])
        if not isinstance(function, ast.FunctionDef) or by_name(node) or not any(compared):
            continue
        for subject, known, line in chains_in(function, lambda body, at=node: _is_chamfer(search, at, body)):
            if is_evaluation(subject) or not _LOSS.search(f"{subject} {known}"):
                continue
            edit, owner = None, project.owner(node)
            if subject in [argument.arg for argument in function.args.args]:
                edit = decorator(node[0], node[1], "lets_loss_through", arguments=f'("{subject}", "{known}")')
            elif subject.startswith("self.") and owner and (owner, subject) not in done:
                edit = _line(project, (owner[0], f"{owner[1]}.__init__"), subject, known)
                done |= {(owner, subject)} if edit else set()
            if edit:
                yield Site(node[0], line, node[1], f"loss chosen by the string {subject}, known {known!r}", edit)


def chains_in(function: ast.FunctionDef, is_chamfer) -> Iterator[tuple[str, str, int]]:
    """(what is compared, a name for which the host builds a Chamfer, line) of every if/elif chain over strings.

    is_chamfer: whether the statements of a branch use a Chamfer.
    """
    seen: set[int] = set()
    for node in inside(function, ast.If):
        if id(node) in seen:
            continue
        branches = [node]
        while len(after := branches[-1].orelse) == 1 and isinstance(after[0], ast.If):
            branches.append(after[0])
        seen |= set(map(id, branches))
        compared = [_comparison(branch.test) or ("", "") for branch in branches]
        subjects = {subject for subject, _ in compared}
        alone = len(branches) < 2 and not any(isinstance(statement, ast.Raise) for statement in node.orelse)
        if alone or len(subjects) != 1 or "" in subjects:
            continue
        known = [name for (_, name), branch in zip(compared, branches, strict=True) if is_chamfer(branch.body)]
        if known:
            yield subjects.pop(), known[0], node.lineno


def builds_chamfer(body: list[ast.stmt]) -> bool:
    """Whether statements assign a new Chamfer object."""
    return any(isinstance(n, ast.Assign) and names_chamfer(n.value) for s in body for n in ast.walk(s))


def _comparison(test: ast.expr) -> tuple[str, str] | None:
    match test:
        case ast.Compare(left=left, ops=[ast.Eq()], comparators=[ast.Constant(value=str(name))]):
            return ast.unparse(left), name
    return None


def _is_chamfer(search: Search, node: Node, body: list[ast.stmt]) -> bool:
    """Whether a branch uses a replaced loss and no other distance of the host, or makes a Chamfer object."""
    if builds_chamfer(body):
        return True
    project = search.project
    inside = [n for statement in body for n in ast.walk(statement)]
    if any(id(n) in search.ours for n in inside):
        return True
    used = [
        target
        for n in inside
        if isinstance(n, ast.Name | ast.Attribute) and (target := project.resolve(node[0], n, node)) is not None
    ]
    other = [target for target in used if target not in search.edited and _is_distance(search, target)]
    return any(target in search.edited for target in used) and not other


def _is_distance(search: Search, node: Node) -> bool:
    """Whether a definition is another function that measures two clouds, such as an EMD."""
    if not isinstance(search.project.nodes.get(node), ast.FunctionDef):
        return False
    read = search.chamfers.read(node)
    return read is None or read.kind == VALUE_AND_MORE


def _line(project: Project, init: Node, subject: str, known: str) -> Line | None:
    """The line that lets our names through, after the assignment of `subject` in the constructor."""
    for statement in project.code.get(init, ()):
        if isinstance(statement, ast.Assign) and subject in map(dotted, statement.targets):
            config = statement.value
            owner = f", opts={ast.unparse(config.value)}" if isinstance(config, ast.Attribute) else ", self"
            text = f'{subject} = host_loss_name({subject}, "{known}"{owner})'
            return line_after(project, init, statement, subject, text)
    return None
