"""Which objects and functions of a project measure a Chamfer distance: where a Chamfer call is recognised."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

from ..project import Node, Project, dotted, last, parameters
from .functions import NUMBER, ONE_SIDED, ONE_WAY, RAW, WEIGHED, Reader, Reading


@dataclass(frozen=True)
class Made:
    """A Chamfer object that a statement binds to a name. at: the function, class or file it is in. cls: its class."""

    at: Node
    name: str
    statement: ast.stmt
    cls: Node

    @property
    def shown(self) -> str:
        return last(self.cls[1])


class Chamfers:
    """The objects and functions of a project that measure a Chamfer distance. Everything is read once.

    Attributes:
        made: (class, function or file; name) -> the objects that the name may hold.
        bound: ids of all expressions in the statements that bind them.
        makers: function -> the Chamfer class that it returns an object of, or None.
    """

    def __init__(self, project: Project) -> None:
        self.project = project
        self._readings: dict[Node, Reading | None] = {}
        self._kinds: dict[Node, str] = {}
        self.makers: dict[Node, Node | None] = {}
        self.bound: set[int] = set()
        self.made: dict[tuple[Node, str], list[Made]] = {}
        for node, own in project.code.items():
            for statement in own:
                if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
                    self._bind(node, statement)

    def _bind(self, node: Node, statement: ast.Assign | ast.AnnAssign) -> None:
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        pairs: list[tuple[ast.expr, ast.expr | None]] = [(target, statement.value) for target in targets]
        if isinstance(targets[0], ast.Tuple) and isinstance(statement.value, ast.Tuple):
            pairs = list(zip(targets[0].elts, statement.value.elts, strict=False))
        for target, value in pairs:
            name = dotted(target)
            if name and value is not None and (cls := self.maker(node, value)):
                scope, attribute = node, name
                if name.startswith("self."):
                    scope = self.project.owner(node) or node
                elif isinstance(self.project.nodes[node], ast.ClassDef):
                    attribute = f"self.{name}"
                self.made.setdefault((scope, attribute), []).append(Made(node, name, statement, cls))
                self.bound |= {id(n) for n in ast.walk(statement)}

    def find(self, node: Node, name: str) -> list[Made]:
        """The Chamfer objects that a (dotted) name may hold in the function `node`."""
        project = self.project
        if name.startswith("self."):
            owner = next((o for o in project.around(node) if isinstance(project.nodes.get(o), ast.ClassDef)), None)
            found = (self.made.get((base, name)) for base in (project.bases(owner) if owner else ()))
            return next((made for made in found if made), [])
        for around in (*project.around(node), (node[0], "")):
            if (around, name) in self.made:
                return self.made[around, name]
        first, _, rest = name.partition(".")
        target = project.bound(node[0]).get(first)
        if target and rest:
            target = project.bound(target[0]).get(rest) if target[0] and not target[1] else None
        return self.made.get(((target[0], ""), target[1]), []) if target else []

    def maker(self, node: Node, expression: ast.expr, depth: int = 0) -> Node | None:
        """The Chamfer class of the object that an expression makes: `X()`, `a.X().cuda()`, `X() if a else Y()`."""
        if isinstance(expression, ast.IfExp | ast.BoolOp):
            inside = [expression.body, expression.orelse] if isinstance(expression, ast.IfExp) else expression.values
            return next((cls for part in inside if (cls := self.maker(node, part, depth))), None)
        while isinstance(expression, ast.Call):
            if dotted(expression.func):
                target = self.project.resolve(node[0], expression.func, node)
                if target and isinstance(self.project.nodes.get(target), ast.FunctionDef) and depth < 3:
                    return self._made_by(target, depth)
                target = target or ("", dotted(expression.func))
                if self.kind(target) and (target[0] or last(target[1])[:1].isupper() or not expression.args):
                    return target
            if isinstance(expression.func, ast.Attribute):
                expression = expression.func.value
            elif last(dotted(expression.func)) in ("DataParallel", "DistributedDataParallel") and expression.args:
                expression = expression.args[0]
            else:
                return None
        return None

    def _made_by(self, function: Node, depth: int) -> Node | None:
        """The Chamfer class of the object that a function returns."""
        if function not in self.makers:
            self.makers[function] = None
            returned = [n.value for n in self.project.code[function] if isinstance(n, ast.Return) and n.value]
            found = (self.maker(function, value, depth + 1) for value in returned)
            self.makers[function] = next((cls for cls in found if cls), None)
        return self.makers[function]

    def kind(self, cls: Node) -> str:
        """What objects of a class return: NUMBER, RAW, ONE_SIDED or WEIGHED; empty if it is no Chamfer."""
        if cls not in self._kinds:
            self._kinds[cls] = ""
            self._kinds[cls] = self._kind(cls)
        return self._kinds[cls]

    def _kind(self, cls: Node) -> str:
        name, tree = last(cls[1]), self.project.nodes.get(cls)
        by_name = "" if "chamfer" not in name.lower() else ONE_SIDED if ONE_WAY.search(name) else NUMBER
        if not cls[0]:
            return RAW if by_name == NUMBER and re.search(r"\dD|Dist$", name) else by_name
        if not isinstance(tree, ast.ClassDef) or self.is_autograd(cls):
            return ""
        forward = self.forward(cls)
        if forward and (read := self.read(forward)):
            return read.kind if read.kind in (RAW, ONE_SIDED, WEIGHED) else NUMBER
        outer = [base for base in tree.bases if self.project.resolve(cls[0], base) not in self.project.nodes]
        inherits = any("chamfer" in dotted(base).lower() for base in outer)
        return by_name if (forward and len(parameters(self.project.nodes[forward])) > 1) or inherits else ""

    def forward(self, cls: Node) -> Node | None:
        """The method that runs when an object of a class of the project is called."""
        return (self.project.method(cls, "forward") or self.project.method(cls, "__call__")) if cls[0] else None

    def is_autograd(self, cls: Node) -> bool:
        tree = self.project.nodes[cls]
        return isinstance(tree, ast.ClassDef) and any(dotted(base).endswith("Function") for base in tree.bases)

    def read(self, node: Node) -> Reading | None:
        """How a function measures its first two arguments; None if it does not do so itself."""
        if node not in self._readings:
            self._readings[node] = None
            function = self.project.nodes.get(node)
            names = parameters(function)
            if isinstance(function, ast.FunctionDef) and len(names) > 1:
                self._readings[node] = Reader(self, node, names[:2]).read(function)
        return self._readings[node]

    def _unpacks(self, node: Node, call: ast.Call) -> bool:
        """Whether a call's result is unpacked as distances are, not as in `loss, _ = chamfer(a, b)`."""
        for inner in self.project.code[node]:
            if isinstance(inner, ast.Assign) and inner.value is call:
                target = inner.targets[0]
                if isinstance(target, ast.Tuple | ast.List) and (
                    len(target.elts) > 2 or dotted(target.elts[-1]) != "_"
                ):
                    return True
            elif isinstance(inner, ast.Subscript) and inner.value is call and isinstance(inner.slice, ast.Slice):
                return True
        return False

    def gives(self, node: Node, call: ast.Call) -> tuple[str, str, list[Made]]:
        """(what a call returns: RAW, NUMBER, ...; its class or function; the objects that may be called)."""
        name = dotted(call.func)
        made = self.find(node, name) if name else []
        cls = made[-1].cls if made else self.maker(node, call.func) if isinstance(call.func, ast.Call) else None
        if cls:
            kind = self.kind(cls)
            forward = self.forward(cls)
            if kind == NUMBER and not (forward and self.read(forward)) and self._unpacks(node, call):
                kind = RAW
            return kind, last(cls[1]), made
        owner, _, method = name.rpartition(".")
        if method == "apply" and "chamfer" in owner.lower():
            return RAW, owner, []
        target = self.project.resolve(node[0], call.func, node) if name else None
        if target and isinstance(self.project.nodes.get(target), ast.FunctionDef) and target != node:
            read = self.read(target)
            if read and read.kind == RAW:
                return RAW, target[1], []
        return "", "", []


def names_chamfer(expression: ast.expr) -> bool:
    """Whether an expression makes a Chamfer object, judged by the name that is called."""
    while isinstance(expression, ast.Call):
        name = expression.func.attr if isinstance(expression.func, ast.Attribute) else dotted(expression.func)
        if "chamfer" in name.lower() and (name[:1].isupper() or not expression.args) and not ONE_WAY.search(name):
            return True
        expression = expression.func.value if isinstance(expression.func, ast.Attribute) else expression.func
    return False
