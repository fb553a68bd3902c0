"""What a function of two clouds gives back: both directions of a Chamfer or one, a number or one per sample.

Read from the syntax tree: which of the distances between the two clouds reach what is returned, and whether they were
averaged over everything on the way. Distances come from a Chamfer object that gives them, or from the smallest
entries of whatever is computed of both clouds.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..project import Node, Project, dotted, last_name

TWO_SIDED, PER_SAMPLE, ONE_SIDED = "two-sided", "per-sample", "one-sided"
RAW, VALUE_AND_MORE = "raw distances", "a value and more"
WEIGHED = "weighed"
"""Two-sided, but a further argument of the function takes part in the value."""
NUMBER = "number"
"""A class that gives one loss; also one that cannot be read: the run itself finds out what it gives."""

_FIRST, _SECOND, _INDEX, _ARGUMENT, _VECTOR, _COMPUTED, _FOREIGN = range(7)
"""Marks of a value: a distance of each direction, indices, a further argument of the function; not yet averaged over
everything; computed of clouds, or what a network makes of them. The names of the clouds are marks, too."""
_BOTH = frozenset({_FIRST, _SECOND})
_OUTPUTS = frozenset({_FIRST, _SECOND, _INDEX, _ARGUMENT})
_ONE_WAY = re.compile(r"(_PM|_split|_side|UDF)$|pa?r?tial|single|one_?(way|side)", re.IGNORECASE)
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
    """kind: one of those above. line: where the distances come from."""

    kind: str
    line: int


@dataclass(frozen=True)
class _Value:
    """What an expression depends on. entries: of a tuple or list, whose marks are those of them all."""

    marks: frozenset[object] = frozenset()
    entries: tuple[_Value, ...] = ()

    @property
    def clouds(self) -> frozenset[object]:
        return frozenset(mark for mark in self.marks if isinstance(mark, str))

    @property
    def outputs(self) -> frozenset[object]:
        return self.marks & _OUTPUTS

    def plus(self, *marks: int) -> _Value:
        """With further marks, and no longer a tuple."""
        return _Value(self.marks | {*marks})


_NOTHING = _Value()
_DISTANCES = tuple(_Value(frozenset({i, _VECTOR})) for i in (_FIRST, _SECOND, _INDEX, _INDEX))


@dataclass(frozen=True)
class Made:
    """A Chamfer object that a statement binds. at: the function or class, or the file's top level. cls: its class."""

    at: Node
    name: str
    statement: ast.stmt
    cls: Node

    @property
    def shown(self) -> str:
        return last(self.cls[1])


class Chamfers:
    """Which objects and functions of a project measure a Chamfer distance. Everything is read once.

    made: (class, function or file, name) -> the objects it may hold. bound: what (by id) such statements are made of.
    makers: function -> the class of whose objects it returns one.
    """

    def __init__(self, project: Project) -> None:
        self.project = project
        self._readings: dict[Node, Reading | None] = {}
        self._kinds: dict[Node, str] = {}
        self.makers: dict[Node, Node | None] = {}
        self.bound: set[int] = set()
        self.made: dict[tuple[Node, str], list[Made]] = {}
        for node, own in project.own.items():
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
        """The Chamfer objects that a (dotted) name may hold in a function."""
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
        """The Chamfer class that an expression makes an object of: `X()`, `a.X().cuda()`, `X() if a else Y()`."""
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
        """The Chamfer class of whose objects a function returns one."""
        if function not in self.makers:
            self.makers[function] = None
            returned = [n.value for n in self.project.own[function] if isinstance(n, ast.Return) and n.value]
            found = (self.maker(function, value, depth + 1) for value in returned)
            self.makers[function] = next((cls for cls in found if cls), None)
        return self.makers[function]

    def kind(self, cls: Node) -> str:
        """What objects of a class give: NUMBER, RAW, ONE_SIDED, WEIGHED; nothing if it is no Chamfer."""
        if cls not in self._kinds:
            self._kinds[cls] = ""
            self._kinds[cls] = self._kind(cls)
        return self._kinds[cls]

    def _kind(self, cls: Node) -> str:
        name, tree = last(cls[1]), self.project.nodes.get(cls)
        by_name = "" if "chamfer" not in name.lower() else ONE_SIDED if _ONE_WAY.search(name) else NUMBER
        if not cls[0]:
            return RAW if by_name == NUMBER and re.search(r"\dD|Dist$", name) else by_name
        if not isinstance(tree, ast.ClassDef) or self.is_autograd(cls):
            return ""
        forward = self.forward(cls)
        if forward and (reading := self.read(forward)):
            return reading.kind if reading.kind in (RAW, ONE_SIDED, WEIGHED) else NUMBER
        outer = [base for base in tree.bases if self.project.resolve(cls[0], base) not in self.project.nodes]
        inherits = any("chamfer" in dotted(base).lower() for base in outer)
        return by_name if (forward and len(parameters(self.project.nodes[forward])) > 1) or inherits else ""

    def forward(self, cls: Node) -> Node | None:
        """The method that a call of an object of a class of the project runs."""
        return (self.project.method(cls, "forward") or self.project.method(cls, "__call__")) if cls[0] else None

    def is_autograd(self, cls: Node) -> bool:
        tree = self.project.nodes[cls]
        return isinstance(tree, ast.ClassDef) and any(dotted(base).endswith("Function") for base in tree.bases)

    def read(self, node: Node) -> Reading | None:
        """How a function measures its first two arguments; None if it does not, or not by itself."""
        if node not in self._readings:
            self._readings[node] = None
            function = self.project.nodes.get(node)
            names = parameters(function)
            if isinstance(function, ast.FunctionDef) and len(names) > 1:
                self._readings[node] = _Reader(self, node, names[:2]).read(function)
        return self._readings[node]

    def _takes_apart(self, node: Node, call: ast.Call) -> bool:
        """Whether a call's result is taken apart as distances are: not as `loss, _ = chamfer(a, b)`."""
        for inner in self.project.own[node]:
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
        """(what a call gives: RAW, NUMBER, ...; of which class or function; the objects it may be made on)."""
        name = dotted(call.func)
        made = self.find(node, name) if name else []
        cls = made[-1].cls if made else self.maker(node, call.func) if isinstance(call.func, ast.Call) else None
        if cls:
            kind = self.kind(cls)
            forward = self.forward(cls)
            if kind == NUMBER and not (forward and self.read(forward)) and self._takes_apart(node, call):
                kind = RAW
            return kind, last(cls[1]), made
        owner, _, method = name.rpartition(".")
        if method == "apply" and "chamfer" in owner.lower():
            return RAW, owner, []
        target = self.project.resolve(node[0], call.func, node) if name else None
        if target and isinstance(self.project.nodes.get(target), ast.FunctionDef) and target != node:
            reading = self.read(target)
            if reading and reading.kind == RAW:
                return RAW, target[1], []
        return "", "", []


def last(name: str) -> str:
    return name.rpartition(".")[2]


def parameters(function: ast.AST | None) -> list[str]:
    """Names of what a function is given by position, without `self`."""
    if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
        return []
    names = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


def names_chamfer(expression: ast.expr) -> bool:
    """Whether an expression makes a Chamfer object, by its name alone."""
    while isinstance(expression, ast.Call):
        name = expression.func.attr if isinstance(expression.func, ast.Attribute) else dotted(expression.func)
        if "chamfer" in name.lower() and (name[:1].isupper() or not expression.args) and not _ONE_WAY.search(name):
            return True
        expression = expression.func.value if isinstance(expression.func, ast.Attribute) else expression.func
    return False


class _Reader:
    """One pass through a function. `clouds` are the names of its two clouds."""

    def __init__(self, chamfers: Chamfers, node: Node, clouds: list[str]) -> None:
        self.chamfers, self.node, self.clouds = chamfers, node, frozenset(clouds)
        self.values = {cloud: _Value(frozenset({cloud})) for cloud in clouds}
        self.axes: list[int] = []
        self.returned: list[_Value] = []
        self.line = 0
        self.other = False
        """A cloud is a list of stages, or a Chamfer object gives the loss itself: not for this function to replace."""

    def weigh(self, function: ast.FunctionDef, clouds: Iterable[str]) -> None:
        """Further arguments of a function of two clouds take part in what is made of them."""
        taken = function.args
        defaults = [*[None] * (len(taken.args) - len(taken.defaults)), *taken.defaults, *taken.kw_defaults]
        for argument, default in zip((*taken.args, *taken.kwonlyargs), defaults, strict=True):
            absent = isinstance(default, ast.Constant) and default.value is None
            if argument.arg not in (*clouds, "self", "cls", "ctx") and not absent:
                self.values[argument.arg] = _NOTHING.plus(_ARGUMENT)

    def read(self, function: ast.FunctionDef) -> Reading | None:
        self.weigh(function, self.clouds)
        for statement in self.chamfers.project.own[self.node]:
            self.statement(statement)
        if self.other or not self.line:
            return None
        kinds = {kind for value in self.returned if (kind := _kind(value))}
        return Reading(kinds.pop() if len(kinds) == 1 else VALUE_AND_MORE, self.line) if kinds else None

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
        if self.is_cloud(whole) and not isinstance(index, ast.Slice | ast.Tuple):
            # A mask or indices that were made of the cloud keep it one; anything else picks a stage.
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
        """The smallest entries along an axis of something computed of both clouds: one direction's distances."""
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


class Distances(_Reader):
    """What becomes of the distances that a statement binds. distances: names that hold one, or something made of it."""

    def __init__(self, chamfers: Chamfers, node: Node, call: ast.Assign) -> None:
        super().__init__(chamfers, node, [])
        for target in call.targets:
            self.bind(target, _Value(entries=_DISTANCES))
        self.distances = {name for name, value in self.values.items() if value.outputs <= _BOTH} - {"_"}
        function, clouds = chamfers.project.nodes[node], {n.id for n in ast.walk(call) if isinstance(n, ast.Name)}
        if isinstance(function, ast.FunctionDef) and len(clouds & {a.arg for a in function.args.args} - {"self"}) == 2:
            self.weigh(function, clouds)

    def takes(self, statement: ast.Assign) -> str:
        """ "number" if a statement makes one of both distances, "distance" if it makes another of one or both."""
        (name,) = (dotted(target) for target in statement.targets)
        value = self.values[name] = self.value(statement.value)
        if _INDEX in value.marks or value.entries or not name:
            return ""
        if _VECTOR not in value.marks and value.outputs == _BOTH:
            return "number"
        self.distances.add(name)
        return "distance"


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
        return ""  # several losses side by side: what makes each of them counts
    return PER_SAMPLE if entries[0].outputs == _BOTH and _VECTOR in entries[0].marks else VALUE_AND_MORE
