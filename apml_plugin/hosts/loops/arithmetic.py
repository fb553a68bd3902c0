"""Arithmetic around a replaced value that is not linear: what it means for one loss it does not for another."""

from __future__ import annotations

import ast

from ..project import Node, dotted
from .finding import Finder
from .reading import last

_BENDING = {
    "acosh", "arccosh", "asinh", "arcsinh", "log", "log1p", "log10", "exp", "expm1", "sqrt", "rsqrt", "pow", "square",
    "tanh", "sigmoid", "reciprocal", "atan", "arctan", "softplus",
}  # fmt: skip
_ENDS = {"item", "detach", "cpu"}


def warnings(finder: Finder) -> tuple[str, ...]:
    """`arccosh(1 + loss)` and the like, with file and line; weights and sums are not among them."""
    found: dict[str, None] = {}
    for node in sorted(finder.using):
        made_ours: set[str] = set()
        for inner in finder.project.own[node]:
            if isinstance(inner, ast.Assign | ast.AugAssign) and _is_ours(finder, node, inner.value, made_ours):
                targets = inner.targets if isinstance(inner, ast.Assign) else [inner.target]
                made_ours |= {dotted(n) for t in targets for n in ast.walk(t)} - {"", "_"}
            for what, part in _bends(inner):
                if _is_ours(finder, node, part, made_ours):
                    place = f"{node[0]}:{part.lineno} {node[1]}"
                    found[f"{place}: {what} is not linear: around another loss it does not mean the same"] = None
    return tuple(found)


def _bends(inner: ast.AST) -> list[tuple[str, ast.expr]]:
    if isinstance(inner, ast.Call) and isinstance(inner.func, ast.Attribute | ast.Name):
        name = inner.func.attr if isinstance(inner.func, ast.Attribute) else inner.func.id
        owner = [inner.func.value] if isinstance(inner.func, ast.Attribute) else []
        return [(ast.unparse(inner), part) for part in (*owner, *inner.args[:1])] if name in _BENDING else []
    if isinstance(inner, ast.BinOp) and isinstance(inner.op, ast.Pow | ast.Div):
        return [(ast.unparse(inner), inner.left if isinstance(inner.op, ast.Pow) else inner.right)]
    return []


def _is_ours(finder: Finder, node: Node, expression: ast.expr, made_ours: set[str]) -> bool:
    """Whether an expression is made of a replaced value, as a value that gradients go through."""
    inside = list(ast.walk(expression))
    if any(isinstance(n, ast.Attribute) and last(dotted(n) or n.attr) in _ENDS for n in inside):
        return False
    for n in inside:
        if id(n) in finder.ours or (isinstance(n, ast.Name) and n.id in made_ours):
            return True
        if isinstance(n, ast.Call) and finder.project.resolve(node[0], n.func, node) in finder.edited:
            return True
    return False
