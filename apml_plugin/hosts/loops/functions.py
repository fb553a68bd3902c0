"""What a function of two clouds returns: both directions of a Chamfer distance or one, a number or one per sample.

Read from the syntax tree: which of the distances between the two clouds reach what is returned, and whether they are
averaged over everything on the way. Distances come from a Chamfer object that returns them, or from the smallest
entries of whatever is computed from both clouds.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..project import Node, dotted, last_name

if TYPE_CHECKING:
    from .chamfers import Chamfers

TWO_SIDED, PER_SAMPLE, ONE_SIDED = "two-sided", "per-sample", "one-sided"
RAW, VALUE_AND_MORE = "raw distances", "a value and more"
WEIGHED = "weighed"
"""Two-sided, but a further argument of the function takes part in the value."""
NUMBER = "number"
"""A class whose objects return one loss, or whose code does not show what they return: a run shows it."""

_FIRST, _SECOND, _INDEX, _ARGUMENT, _VECTOR, _COMPUTED, _FOREIGN = range(7)
"""Marks of a value: a distance of either direction, indices, a further argument of the function; not yet averaged over
everything; computed from clouds, or by an unknown function. The names of the clouds are marks, too."""
_BOTH = frozenset({_FIRST, _SECOND})
_OUTPUTS = frozenset({_FIRST, _SECOND, _INDEX, _ARGUMENT})
ONE_WAY = re.compile(r"(_PM|_split|_side|UDF)$|pa?r?tial|single|one_?(way|side)", re.IGNORECASE)
_REDUCING = {"mean", "sum"}
_OTHER = {"max", "amax", "topk", "sort", "argmin", "argmax", "median", "quantile"}
LAYOUT = {
    "permute", "transpose", "contiguous", "float", "double", "half", "to", "cuda", "cpu", "type", "type_as", "clone",
    "reshape", "view", "squeeze", "unsqueeze", "expand", "t", "T", "mT", "requires_grad_",
}  # fmt: skip
_NOT_A_CLOUD = {"shape", "device", "dtype", "ndim", "is_cuda", "size", "dim", "detach", "item", "numel", "len", "range"}
_MATHS = ("torch", "F", "np", "numpy", "math", "einops")


@dataclass(frozen=True)
class Reading:
    """How a function measures two clouds.

    Attributes:
        kind: one of the kinds above.
        line: where the distances come from.
        part: source of an expression by which it measures only a part of a cloud, if any.
    """

    kind: str
    line: int
    part: str = ""


@dataclass(frozen=True)
class _Value:
    """What an expression depends on. entries: those of a tuple or list, which has the marks of all of them."""

    marks: frozenset[object] = frozenset()
    entries: tuple[_Value, ...] = ()

    @property
    def clouds(self) -> frozenset[object]:
        return frozenset(mark for mark in self.marks if isinstance(mark, str))

    @property
    def outputs(self) -> frozenset[object]:
        return self.marks & _OUTPUTS

    def plus(self, *marks: int) -> _Value:
        """The value with further marks, and without entries."""
        return _Value(self.marks | {*marks})


_NOTHING = _Value()
_DISTANCES = tuple(_Value(frozenset({i, _VECTOR})) for i in (_FIRST, _SECOND, _INDEX, _INDEX))


class Reader:
    """One pass through the code of a function. clouds: the names of its two clouds."""

    def __init__(self, chamfers: Chamfers, node: Node, clouds: list[str]) -> None:
        self.chamfers, self.node, self.clouds = chamfers, node, frozenset(clouds)
        self.values = {cloud: _Value(frozenset({cloud})) for cloud in clouds}
        self.axes: list[int] = []
        self.returned: list[_Value] = []
        self.line = 0
        self.part = ""
        self.other = False
        """A cloud is a list of stages, or a Chamfer object returns the loss: this function is not what is replaced."""

    def weigh(self, function: ast.FunctionDef, clouds: Iterable[str]) -> None:
        """Marks the further arguments of a function of two clouds."""
        taken = function.args
        defaults = [*[None] * (len(taken.args) - len(taken.defaults)), *taken.defaults, *taken.kw_defaults]
        for argument, default in zip((*taken.args, *taken.kwonlyargs), defaults, strict=True):
            absent = isinstance(default, ast.Constant) and default.value is None
            if argument.arg not in (*clouds, "self", "cls", "ctx") and not absent:
                self.values[argument.arg] = _NOTHING.plus(_ARGUMENT)

    def read(self, function: ast.FunctionDef) -> Reading | None:
        self.weigh(function, self.clouds)
        for statement in self.chamfers.project.code[self.node]:
            self.statement(statement)
        if self.other or not self.line:
            return None
        kinds = {kind for value in self.returned if (kind := _kind(value))}
        return Reading(kinds.pop() if len(kinds) == 1 else VALUE_AND_MORE, self.line, self.part) if kinds else None

    def statement(self, statement: ast.AST) -> None:
        if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
            value = self.value(statement.value)
            for target in statement.targets if isinstance(statement, ast.Assign) else [statement.target]:
                self.bind(target, value)
        elif isinstance(statement, ast.AugAssign):
            name = dotted(statement.target)
            self.values[name] = _joined(self.values.get(name, _NOTHING), self.value(statement.value))
        elif isinstance(statement, ast.Return) and statement.value is not None:
            self.returned.append(self.value(statement.value))
        elif isinstance(statement, ast.Expr) and isinstance(call := statement.value, ast.Call):
            if isinstance(call.func, ast.Attribute) and call.func.attr in ("append", "extend"):
                name, new = dotted(call.func.value), _joined(*map(self.value, call.args)).plus(_VECTOR)
                old = self.values.get(name, _NOTHING)
                self.values[name] = _Value(old.marks | new.marks, (*old.entries, new))
        elif isinstance(statement, ast.For):
            around = [n.id for n in ast.walk(statement.iter) if isinstance(n, ast.Name)]
            self.other = self.other or any(self.is_cloud(self.values.get(name, _NOTHING)) for name in around)

    def bind(self, target: ast.expr, value: _Value) -> None:
        if isinstance(target, ast.Tuple | ast.List):
            self.other = self.other or self.is_cloud(value)
            for i, element in enumerate(target.elts):
                self.bind(element, value.entries[i] if i < len(value.entries) else value.plus())
        elif name := dotted(target):
            self.values[name] = value

    def is_cloud(self, value: _Value) -> bool:
        return len(value.marks) == len(value.clouds) == 1 and not value.entries

    def value(self, expression: ast.expr) -> _Value:
        if isinstance(expression, ast.Call):
            return self.call(expression)
        if dotted(expression) in self.values:
            return self.values[dotted(expression)]
        if isinstance(expression, ast.Attribute):
            return self.attribute(expression.attr, self.value(expression.value))
        if isinstance(expression, ast.Tuple | ast.List):
            entries = tuple(map(self.value, expression.elts))
            return _Value(_joined(*entries).marks, entries)
        if isinstance(expression, ast.Subscript):
            return self.subscript(expression, self.value(expression.value))
        if isinstance(expression, ast.Compare | ast.Constant | ast.Lambda):
            return _NOTHING
        parts = (part for part in ast.iter_child_nodes(expression) if isinstance(part, ast.expr))
        return _computed(_joined(*map(self.value, parts)))

    def attribute(self, name: str, value: _Value) -> _Value:
        if name in _NOT_A_CLOUD:
            return _NOTHING
        if name in ("values", "indices") and len(value.entries) > 1:
            return value.entries[name == "indices"]
        return value

    def subscript(self, expression: ast.Subscript, whole: _Value) -> _Value:
        index = expression.slice
        if isinstance(index, ast.Constant) and isinstance(index.value, int) and index.value < len(whole.entries):
            return whole.entries[index.value]
        if whole.entries and isinstance(index, ast.Slice):
            return _Value(whole.marks, whole.entries[:2])
        if self.is_cloud(whole):
            self.part = self.part or (ast.unparse(expression) if _selects(index) else "")
            if not isinstance(index, ast.Slice | ast.Tuple):
                # A mask or indices that were made from the cloud select points; anything else selects a stage.
                self.other = self.other or not self.value(index).clouds
        return whole.plus()

    def call(self, call: ast.Call) -> _Value:
        given = [self.value(argument) for argument in (*call.args, *(keyword.value for keyword in call.keywords))]
        method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        owner = self.value(call.func.value) if isinstance(call.func, ast.Attribute) else _NOTHING
        name = method or dotted(call.func)
        if len(given) > 1 and all(map(self.is_cloud, given[:2])) and _joined(*given[:2]).clouds == self.clouds:
            kind, _, _ = self.chamfers.gives(self.node, call)
            self.other = self.other or kind == NUMBER
            if kind == RAW:
                self.line = self.line or call.lineno
                return _Value(_joined(*_DISTANCES[:2]).marks, _DISTANCES)
        if name in _NOT_A_CLOUD:
            return _NOTHING
        of = owner if owner.marks else given[0] if call.args else _NOTHING
        if name in ("min", "amin"):
            return self.nearest(call, of, of is owner)
        everything = _joined(owner, *given)
        if name in _REDUCING:
            whole = len(given) == (0 if of is owner else 1)
            return _computed(_Value(of.marks - {_VECTOR} if whole else of.marks))
        if name in _OTHER and everything.outputs:
            return everything.plus(_INDEX)
        if method in LAYOUT and owner.clouds and not owner.outputs:
            return owner
        root = dotted(call.func).partition(".")[0]
        known = root in _MATHS or owner.marks or len(everything.clouds) == 2
        return _computed(everything) if known or not everything.clouds else everything.plus(_FOREIGN)

    def nearest(self, call: ast.Call, of: _Value, by_method: bool) -> _Value:
        """The smallest entries along an axis of what is computed from both clouds: the distances of one direction."""
        given = [*call.args[0 if by_method else 1 :], *(k.value for k in call.keywords if k.arg in ("dim", "axis"))]
        try:
            axis = ast.literal_eval(given[0]) if given else None
        except (ValueError, TypeError):
            axis = None
        outputs = of.outputs - {_ARGUMENT}
        if outputs or of.clouds != self.clouds or _FOREIGN in of.marks or not isinstance(axis, int):
            return of.plus(_INDEX) if outputs else of
        if axis % 3 not in self.axes:
            self.axes.append(axis % 3)
        self.line = self.line or call.lineno
        entries = (_DISTANCES[min(self.axes.index(axis % 3), 1)], _DISTANCES[_INDEX])
        if _ARGUMENT in of.outputs:
            entries = (entries[0].plus(_ARGUMENT), entries[1])
        return entries[0] if last_name(call.func) == "amin" else _Value(_joined(*entries).marks, entries)


class Distances(Reader):
    """What happens to the distances that a statement binds. distances: names that hold one, or what is made of one."""

    def __init__(self, chamfers: Chamfers, node: Node, call: ast.Assign) -> None:
        super().__init__(chamfers, node, [])
        for target in call.targets:
            self.bind(target, _Value(entries=_DISTANCES))
        self.distances = {name for name, value in self.values.items() if value.outputs <= _BOTH} - {"_"}
        function, clouds = chamfers.project.nodes[node], {n.id for n in ast.walk(call) if isinstance(n, ast.Name)}
        if isinstance(function, ast.FunctionDef) and len(clouds & {a.arg for a in function.args.args} - {"self"}) == 2:
            self.weigh(function, clouds)

    def takes(self, statement: ast.Assign) -> str:
        """ "number" if a statement makes a number of both distances, "distance" if it makes another distance."""
        (name,) = (dotted(target) for target in statement.targets)
        value = self.values[name] = self.value(statement.value)
        if _INDEX in value.marks or value.entries or not name:
            return ""
        if _VECTOR not in value.marks and value.outputs == _BOTH:
            return "number"
        self.distances.add(name)
        return "distance"


def _selects(index: ast.expr) -> bool:
    """Whether an index leaves something out; `[:, None]` and `[...]` do not."""
    for part in index.elts if isinstance(index, ast.Tuple) else [index]:
        whole = isinstance(part, ast.Slice) and part.lower is part.upper is part.step is None
        if not whole and not (isinstance(part, ast.Constant) and part.value in (None, ...)):
            return True
    return False


def _joined(*values: _Value) -> _Value:
    return _Value(frozenset().union(*(value.marks for value in values)))


def _computed(value: _Value) -> _Value:
    return value.plus(_COMPUTED) if value.clouds else value.plus()


def _kind(value: _Value) -> str:
    outputs, entries = value.outputs, value.entries
    if [entry.outputs for entry in entries[:2]] == [{_FIRST}, {_SECOND}]:
        return RAW
    if not outputs >= _BOTH:
        return ONE_SIDED if outputs and outputs <= _BOTH and not entries and _VECTOR not in value.marks else ""
    if not entries:
        plain = PER_SAMPLE if _VECTOR in value.marks else TWO_SIDED
        return VALUE_AND_MORE if _INDEX in outputs else WEIGHED if _ARGUMENT in outputs else plain
    if all(e.outputs == _BOTH and _VECTOR not in e.marks for e in entries if e.outputs):
        return ""  # several losses: the calls that make them are replaced
    return PER_SAMPLE if entries[0].outputs == _BOTH and _VECTOR in entries[0].marks else VALUE_AND_MORE
