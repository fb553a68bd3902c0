"""Functions that give a Chamfer value and, beside it, neighbours' indices for other terms to use (D-PCC's own).

Such a function cannot be replaced as a whole. Where it keeps the value of each pair of clouds in a variable of its
own, one line behind that makes it ours; the indices stay the host's.
"""

from __future__ import annotations

import ast

from ...patching import Line
from . import chamfers
from .project import Node, Project, own_code
from .sites import SOURCE

_GT_NAMES = ("gt", "target", "label", "truth", "complete")
_BINDING = ast.Assign | ast.AugAssign | ast.AnnAssign


def line(project: Project, node: Node) -> Line | None:
    """The line that replaces the value alone; None where that cannot be told to be safe.

    Safe means: one call ``d1, d2, ... = chamfer(a, b)``, whose two distances do nothing but make ``value =
    mean(d1) + mean(d2)`` (roots allowed) further down in the same block; the function returns what comes of the
    value first, and behind it indices only.
    """
    function = project.nodes[node]
    if not isinstance(function, ast.FunctionDef):
        return None
    objects = chamfers.chamfer_objects(project, node)
    calls = [c for c in own_code(function) if isinstance(c, ast.Call) and ast.unparse(c.func) in objects]
    if len(calls) != 1 or len(calls[0].args) != 2 or calls[0].keywords:
        return None
    for block in _blocks(function):
        at = next((i for i, s in enumerate(block) if isinstance(s, ast.Assign) and s.value is calls[0]), None)
        if at is not None:
            return _behind(node, function, block, at)
    return None


def _behind(node: Node, function: ast.FunctionDef, block: list[ast.stmt], at: int) -> Line | None:
    outputs = _names(block[at])
    call = block[at].value  # type: ignore[attr-defined]
    if len(outputs) != 4:
        return None
    clouds = {n.id for argument in call.args for n in ast.walk(argument) if isinstance(n, ast.Name)}
    for statement in block[at + 1 :]:
        if _is_value(statement, outputs[:2]):
            assert isinstance(statement, ast.Assign)
            name = ast.unparse(statement.targets[0])
            if not _alone(function, statement, name, outputs) or not _returned_first(function, name, outputs):
                return None
            pred, gt = (ast.unparse(argument) for argument in call.args)
            if pred.lower().startswith(_GT_NAMES) or gt.lower().startswith("pred"):
                pred, gt = gt, pred
            text = f"{name} = training_value({name}, {pred}, {gt}, label={node[1]!r})"
            return Line(node[0], node[1], name, text, "training_value", SOURCE)
        if {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)} & clouds:
            return None
    return None


def _names(statement: ast.stmt) -> list[str]:
    """a, b, c, d of `a, b, c, d = ...`; nothing for any other target."""
    target = statement.targets[0] if isinstance(statement, ast.Assign) and len(statement.targets) == 1 else None
    if not isinstance(target, ast.Tuple) or not all(isinstance(element, ast.Name) for element in target.elts):
        return []
    return [element.id for element in target.elts if isinstance(element, ast.Name)]


def _is_value(statement: ast.stmt, distances: list[str]) -> bool:
    """`x = mean(d1) + mean(d2)`, perhaps of their roots, perhaps halved."""
    if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
        return False
    if not isinstance(statement.targets[0], ast.Name):
        return False
    value = statement.value
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Div | ast.Mult):
        value = value.left if isinstance(value.right, ast.Constant) else value.right
    if not isinstance(value, ast.BinOp) or not isinstance(value.op, ast.Add):
        return False
    found = [_mean_of(side) for side in (value.left, value.right)]
    return sorted(found) == sorted(distances)


def _mean_of(expression: ast.expr) -> str:
    """d of `torch.mean(d)`, `d.mean()`, `torch.mean(torch.sqrt(d))`; else nothing."""
    seen = []
    while isinstance(expression, ast.Call) and not expression.keywords and isinstance(expression.func, ast.Attribute):
        seen.append(expression.func.attr)
        inside = expression.func.value
        if len(expression.args) == 1 and isinstance(inside, ast.Name) and inside.id == "torch":
            expression = expression.args[0]
        elif not expression.args:
            expression = inside
        else:
            return ""
    return expression.id if isinstance(expression, ast.Name) and seen in (["mean"], ["mean", "sqrt"]) else ""


def _alone(function: ast.FunctionDef, statement: ast.stmt, name: str, outputs: list[str]) -> bool:
    """Whether the distances are read here only, and name and outputs are bound once."""
    here = {id(n) for n in ast.walk(statement)}
    nodes = [n for n in ast.walk(function) if isinstance(n, ast.Name)]
    elsewhere = any(n.id in outputs[:2] and isinstance(n.ctx, ast.Load) and id(n) not in here for n in nodes)
    bound = [n.id for n in nodes if isinstance(n.ctx, ast.Store)]
    return not elsewhere and all(bound.count(once) == 1 for once in {name, *outputs} - {"_"})


def _returned_first(function: ast.FunctionDef, name: str, outputs: list[str]) -> bool:
    """Whether each return gives what depends on the value first and only what depends on indices behind it."""
    from_value, from_indices = {name}, set(outputs[2:]) - {"_"}
    for names in (from_value, from_indices):
        for _ in range(2):  # once more, for what a loop carries round
            for inner in own_code(function):
                used = {n.id for n in ast.walk(inner) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
                if isinstance(inner, _BINDING) and used & names:
                    names |= {n.id for n in ast.walk(inner) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
                call = inner.value if isinstance(inner, ast.Expr) else None
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and used & names:
                    names |= {n.id for n in ast.walk(call.func.value) if isinstance(n, ast.Name)}
    returns = [n.value for n in own_code(function) if isinstance(n, ast.Return)]
    for value in returns:
        entries = value.elts if isinstance(value, ast.Tuple) else []
        kinds = [({n.id for n in ast.walk(e) if isinstance(n, ast.Name)}) for e in entries]
        if len(kinds) < 2 or not kinds[0] & from_value or kinds[0] & from_indices:
            return False
        if any(kind & from_value or not kind & from_indices for kind in kinds[1:]):
            return False
    return bool(returns)


def _blocks(tree: ast.AST) -> list[list[ast.stmt]]:
    """Every list of statements of a function."""
    found = []
    for inner in [tree, *own_code(tree)]:
        for field in ("body", "orelse", "finalbody"):
            block = getattr(inner, field, None)
            if isinstance(block, list) and block and isinstance(block[0], ast.stmt):
                found.append(block)
    return found
