"""Functions that use the distances of both directions themselves: where their number is made, a line replaces it.

The function keeps its indices, and whatever it does with the number.
"""

from __future__ import annotations

import ast

from ...patching import Line
from ...patching.places import blocks
from ..gates import GT_NAMES
from ..project import Node, inside
from .chamfers import Chamfers
from .functions import LAYOUT, Distances
from .records import line_after


def lines_for(chamfers: Chamfers, node: Node, call: ast.Call) -> list[Line]:
    """The lines that replace the numbers made from `d1, d2, ... = chamfer(a, b)`; none if that may be unsafe.

    It is safe if, in the same block, the two distances are used only to make numbers, each bound to a name, before
    one of the clouds is bound again.
    """
    clouds = [*call.args, *(keyword.value for keyword in call.keywords)][:2]
    if len(clouds) < 2 or not all(map(_is_cheap, clouds)):
        return []
    for block in blocks(chamfers.project.nodes[node], into_definitions=False):
        at = next((i for i, s in enumerate(block) if isinstance(s, ast.Assign) and s.value is call), None)
        if at is not None:
            pred, gt = (ast.unparse(cloud) for cloud in clouds)
            if pred.lower().startswith(GT_NAMES) or gt.lower().startswith("pred"):
                pred, gt = gt, pred
            given = f"{pred}, {gt}, label={node[1] or node[0]!r}"
            return [
                line_after(chamfers.project, node, s, name, f"{name} = training_value({name}, {given})")
                for name, s in _values(chamfers, node, block[at:], set().union(*map(names, clouds)))
            ]
    return []


def _values(chamfers: Chamfers, node: Node, block: list[ast.stmt], clouds: set[str]) -> list[tuple[str, ast.stmt]]:
    """(name, statement) of each number made from both distances, which the first statement of the block binds."""
    assert isinstance(block[0], ast.Assign)
    reader = Distances(chamfers, node, block[0])
    numbers: list[tuple[str, ast.stmt]] = []
    spent, until = {id(n) for n in ast.walk(block[0])}, 10**9
    for statement in block[1:]:
        bound = _stored(statement)
        if isinstance(statement, ast.Assign) and len(bound) == 1 and names(statement.value) & reader.distances:
            kind = reader.takes(statement)
            spent |= {id(n) for n in ast.walk(statement)} if kind else set()
            if kind == "number":
                numbers.append((bound.pop(), statement))
        elif bound & (clouds | reader.distances):
            until = statement.lineno if bound & reader.distances else until
            break
    loads = (n for n in chamfers.project.code[node] if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load))
    left = [n for n in loads if n.id in reader.distances and id(n) not in spent and block[0].lineno < n.lineno < until]
    return [] if left else numbers


def _is_cheap(cloud: ast.expr) -> bool:
    """Whether the expression of a cloud can be evaluated again: it only calls methods that change the layout."""
    called = [call.func for call in inside(cloud, ast.Call)]
    return all(isinstance(method, ast.Attribute) and method.attr in LAYOUT for method in called)


def names(tree: ast.AST) -> set[str]:
    return {name.id for name in inside(tree, ast.Name)}


def _stored(tree: ast.AST) -> set[str]:
    return {name.id for name in inside(tree, ast.Name) if isinstance(name.ctx, ast.Store)}
