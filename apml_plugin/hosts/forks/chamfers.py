"""What a function that measures a Chamfer distance gives back: both directions or one, a number or one per sample.

Read from the syntax tree: which of the distances that the Chamfer object gave reach what is returned, and whether
they were averaged over everything on the way.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field, replace

from ..pointr.stages import last_name
from .project import Node, Project, own_code

TWO_SIDED, PER_SAMPLE, ONE_SIDED, INDICES = "two-sided", "per-sample", "one-sided", "indices"
WEIGHED = "weighed"
"""Two-sided, but a further argument of the function takes part in the value."""

_ARGUMENT = 9

_ONE_WAY = ("_PM", "_split")
_REDUCING = {"mean", "sum"}


@dataclass(frozen=True)
class Reading:
    """kind: one of those above. line: where the Chamfer object is called. made: what it is called there."""

    kind: str
    line: int
    made: str


@dataclass(frozen=True)
class _Value:
    """What an expression depends on: outputs 0..3 of a Chamfer object, 9 for a further argument of the function.

    number: averaged over everything.
    """

    outputs: frozenset[int] = frozenset()
    number: bool = True
    entries: tuple[_Value, ...] = field(default=())


def read(project: Project, node: Node) -> Reading | None:
    """How a function uses a Chamfer object on its first two arguments; None if it does not."""
    function = project.nodes[node]
    if not isinstance(function, ast.FunctionDef):
        return None
    arguments = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
    clouds = arguments[1:3] if arguments[:1] in (["self"], ["cls"]) else arguments[:2]
    if len(clouds) < 2:
        return None
    others = [name for name in (*arguments, *(a.arg for a in function.args.kwonlyargs)) if name not in clouds]
    return _Reader(project, node, clouds, [name for name in others if name not in ("self", "cls")]).read(function)


def makes_chamfer(expression: ast.expr) -> str:
    """The name of the Chamfer class that an expression makes an object of, if it does: `X()`, `a.X().cuda()`."""
    while isinstance(expression, ast.Call):
        name = last_name(expression.func)
        # A class, not an object at work: that one gets its clouds by position.
        made = name[:1].isupper() or not expression.args
        if "chamfer" in name.lower() and made and not name.endswith(_ONE_WAY):
            return name
        expression = expression.func.value if isinstance(expression.func, ast.Attribute) else expression.func
    return ""


def chamfer_objects(project: Project, node: Node) -> dict[str, str]:
    """Names (dotted for `self.x`) that hold a Chamfer object inside a function -> the class it is of."""
    file = node[0]
    found = _assigned(project.trees[file].body)
    for name, target in project._imports(file)[0].items():
        if target[0] != file and name not in found:
            made = _assigned(project.trees[target[0]].body).get(target[1])
            if made:
                found[name] = made
    owner = project.owner(node)
    if owner:
        for statement in ast.walk(project.nodes[owner]):
            found.update({k: v for k, v in _assigned([statement]).items() if k.startswith("self.")})
    found.update(_assigned([n for n in own_code(project.nodes[node]) if isinstance(n, ast.stmt)]))
    return found


def _assigned(statements: list[ast.stmt] | list[ast.AST]) -> dict[str, str]:
    return {
        ast.unparse(target): made
        for statement in statements
        if isinstance(statement, ast.Assign) and (made := makes_chamfer(statement.value))
        for target in statement.targets
    }


class _Reader:
    def __init__(self, project: Project, node: Node, clouds: list[str], others: list[str]) -> None:
        self.objects = chamfer_objects(project, node)
        self.values = {name: _Value(frozenset({_ARGUMENT})) for name in others}
        self.from_clouds = {cloud: {cloud} for cloud in clouds}
        self.clouds = set(clouds)
        self.returned: list[_Value] = []
        self.line, self.made = 0, ""

    def read(self, function: ast.FunctionDef) -> Reading | None:
        self.block(function.body)
        if not self.line or not self.returned:
            return None
        kinds = {_kind(value) for value in self.returned}
        kind = kinds.pop() if len(kinds) == 1 else INDICES
        return Reading(kind, self.line, self.made) if kind else None

    def block(self, statements: list[ast.stmt]) -> None:
        for statement in statements:
            self.statement(statement)

    def statement(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.Assign):
            value, clouds = self.value(statement.value), self.clouds_in(statement.value)
            for target in statement.targets:
                self.bind(target, value, clouds)
        elif isinstance(statement, ast.AugAssign):
            name = ast.unparse(statement.target)
            both = _joined([self.values.get(name, _Value()), self.value(statement.value)])
            self.values[name] = both
        elif isinstance(statement, ast.Return) and statement.value is not None:
            self.returned.append(self.value(statement.value))
        elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            self.method_call(statement.value)
        elif not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            for name in ("body", "orelse", "finalbody"):
                self.block(getattr(statement, name, []))
            for handler in getattr(statement, "handlers", []):
                self.block(handler.body)

    def bind(self, target: ast.expr, value: _Value, clouds: set[str]) -> None:
        if isinstance(target, ast.Tuple | ast.List):
            for i, element in enumerate(target.elts):
                part = value.entries[i] if i < len(value.entries) else replace(value, entries=())
                self.bind(element, part, clouds)
            return
        name = ast.unparse(target)
        self.values[name] = value
        self.from_clouds[name] = clouds

    def method_call(self, call: ast.Call) -> None:
        """`res.append(x)` and `res.extend([x])` add to what a list depends on."""
        if not isinstance(call.func, ast.Attribute) or call.func.attr not in ("append", "extend"):
            return
        name = ast.unparse(call.func.value)
        old, new = self.values.get(name, _Value()), _joined([self.value(argument) for argument in call.args])
        entries = (*old.entries, replace(new, entries=()))
        self.values[name] = _Value(old.outputs | new.outputs, False, entries)

    def clouds_in(self, expression: ast.expr) -> set[str]:
        names = [ast.unparse(n) for n in ast.walk(expression) if isinstance(n, ast.Name | ast.Attribute)]
        return set().union(*(self.from_clouds.get(name, set()) for name in names))

    def value(self, expression: ast.expr) -> _Value:
        if isinstance(expression, ast.Call):
            return self.call(expression)
        if isinstance(expression, ast.Name | ast.Attribute) and ast.unparse(expression) in self.values:
            return self.values[ast.unparse(expression)]
        if isinstance(expression, ast.Tuple | ast.List):
            entries = tuple(self.value(element) for element in expression.elts)
            return _Value(_joined(list(entries)).outputs, False, entries)
        if isinstance(expression, ast.Subscript):
            whole, index = self.value(expression.value), expression.slice
            if isinstance(index, ast.Constant) and isinstance(index.value, int) and index.value < len(whole.entries):
                return whole.entries[index.value]
            if whole.entries and isinstance(index, ast.Slice):
                return replace(whole, number=False)
            return replace(whole, entries=())
        return _joined([self.value(child) for child in ast.iter_child_nodes(expression) if isinstance(child, ast.expr)])

    def call(self, call: ast.Call) -> _Value:
        if ast.unparse(call.func) in self.objects or makes_chamfer(call.func):
            given = [self.clouds_in(argument) for argument in call.args[:2]]
            if all(len(clouds) == 1 for clouds in given) and set().union(*given) == self.clouds:
                self.line, self.made = self.line or call.lineno, ast.unparse(call.func)
                outputs = tuple(_Value(frozenset({i}), False) for i in range(4))
                return _Value(frozenset({0, 1}), True, outputs)
        inside = [*call.args, *(keyword.value for keyword in call.keywords)]
        name = last_name(call.func)
        if name in _REDUCING:
            method = isinstance(call.func, ast.Attribute) and self.value(call.func.value).outputs
            parts = [call.func.value] if method and isinstance(call.func, ast.Attribute) else call.args[:1]
            whole = not call.keywords and len(call.args) == (0 if method else 1)
            got = _joined([self.value(part) for part in parts])
            return replace(got, number=got.number or whole)
        owner = [call.func.value] if isinstance(call.func, ast.Attribute) else []
        return _joined([self.value(part) for part in (*owner, *inside)])


def _joined(values: list[_Value]) -> _Value:
    used = [value for value in values if value.outputs]
    return _Value(frozenset().union(*(v.outputs for v in used)), all(value.number for value in used))


def _kind(value: _Value) -> str:
    if _ARGUMENT in value.outputs and not value.entries:
        plain = _kind(replace(value, outputs=value.outputs - {_ARGUMENT}))
        return WEIGHED if plain in (TWO_SIDED, PER_SAMPLE) else plain
    entries = [entry for entry in value.entries if entry.outputs]
    if len(entries) == 4 and [e.outputs for e in entries] == [frozenset({i}) for i in range(4)] and value.number:
        return TWO_SIDED  # an object that gives one number, passed on as it is
    if value.entries:
        if all(e.number and e.outputs == {0, 1} for e in entries):
            return ""  # several losses side by side: what makes each of them counts
        first = value.entries[0]
        if first.outputs >= {0, 1} and not first.number and not first.outputs & {2, 3}:
            return PER_SAMPLE
        return INDICES if value.outputs else ""
    if value.outputs & {2, 3}:
        return INDICES
    if value.outputs >= {0, 1}:
        return TWO_SIDED if value.number else PER_SAMPLE
    return ONE_SIDED if value.outputs else ""
