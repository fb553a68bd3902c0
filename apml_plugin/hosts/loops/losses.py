"""The losses that training reaches: functions, objects, and what is imported from elsewhere.

A function of two clouds gets a decorator; an object, or a function from elsewhere, is wrapped after the statement
that binds it. Which calls train, and what a wrapped object returns, is decided when it runs.
"""

from __future__ import annotations

import ast
import re
from functools import cached_property

from ...patching import decorator
from ...patching.places import targets
from ..gates import GT_NAMES
from ..project import Node, dotted, inside, last, parameters
from . import functions
from .chamfers import Chamfers, Made
from .distances import lines_for, names
from .functions import Reading
from .phases import by_name, is_evaluation, is_evaluation_file, quiet
from .records import Kept, Refused, Site, line_after

_CD = re.compile(r"chamfer|(^|_)cd(_|\d|$)", re.IGNORECASE)
_VALUES = (functions.TWO_SIDED, functions.PER_SAMPLE)
_ONE_WAY = "measures one direction only (partial matching)"
_WEIGHED = "a further argument takes part in its value, which a loss of two clouds does not take"


class Search:
    """What becomes of each loss in the functions `reached` from training.

    Args:
        loops: the functions that train.
        attributes: whether to wrap objects that are attributes of `self`.
        everywhere: whether to decorate the `forward` of every Chamfer class, wherever its objects are used.

    Attributes:
        results: a record for each loss, by file and line.
        ours: ids of the expressions that use a replaced loss.
        edited: functions that get a decorator.
        using: functions that call a replaced loss.
        parts: decorated functions that measure only a part of a cloud, each with file, line and that part.
    """

    def __init__(
        self,
        chamfers: Chamfers,
        reached: set[Node],
        loops: set[Node],
        attributes: bool = True,
        everywhere: bool = False,
    ) -> None:
        self.chamfers, self.project = chamfers, chamfers.project
        self.reached, self.loops, self.attributes, self.everywhere = reached, loops, attributes, everywhere
        self.results: list[Site | Kept | Refused] = []
        self.edited: set[Node] = set()
        self.ours: set[int] = set()
        self.using: set[Node] = set()
        self.parts: list[str] = []
        self._seen: set[Node] = set()
        self._objects: dict[int, tuple[Made, Node]] = {}
        self._imported: dict[tuple[str, str], tuple[Node, ast.AST, str]] = {}
        self._unnamed: dict[Node, tuple[Node, ast.AST]] = {}
        self._raw: list[tuple[Node, ast.Call, str]] = []
        for step in (self._function, self._uses, self._lambdas):
            for node in sorted(reached):
                step(node)
        self._take_raw()
        self._take_objects()
        self._take_unnamed()
        self._take_imported()
        self._report_unknown()
        self.results.sort(key=lambda item: (item.file, item.line))
        self.using |= {node for node in reached - self.edited if self._uses_edited(node)}

    def replaces(self, node: Node, called: ast.expr) -> bool:
        """Whether a function, reached or not, calls an object or an imported function that is replaced."""
        name = dotted(called)
        objects = self.chamfers.find(node, name)
        return (node[0], name) in self._imported or any(id(one) in self._objects for one in objects)

    def _note(self, kind: type[Kept | Refused], node: Node, at: Reading | ast.AST, what: str) -> None:
        line = at.line if isinstance(at, Reading) else getattr(at, "lineno", 1)
        self.results.append(kind(node[0], line, node[1], what))

    def _function(self, node: Node) -> None:
        """A function or method that computes a Chamfer distance of its two arguments."""
        read = self.chamfers.read(node)
        if read is None or read.kind == functions.RAW or node in self.loops:
            return
        if self._is_class_call(node) and not (self.everywhere and read.kind in _VALUES and self._is_used(node)):
            return
        if read.kind in (functions.VALUE_AND_MORE, functions.WEIGHED):
            return  # a line may replace the value alone
        self._seen.add(node)
        if read.kind == functions.ONE_SIDED:
            self._note(Kept, node, read, _ONE_WAY)
        elif layer := self._layer_fed_by(node):
            why = f"its value also goes into the network ({layer}), so it is part of the architecture"
            self._note(Refused, node, read, why)
        else:
            self._decorate(node, read)

    def _decorate(self, node: Node, read: Reading) -> None:
        if node in self.project.duplicates:
            self._note(Refused, node, read, "is defined more than once")
            return
        if last(node[1]) in self._scripted:
            self._note(Refused, node, read, "is compiled by torch.jit, which takes no decorated function")
            return
        vector = read.kind == functions.PER_SAMPLE
        what = "two-sided Chamfer, " + ("one value per sample" if vector else "one number")
        edit = decorator(*node, "trains_with_loss", arguments="(per_sample=True)" if vector else "")
        self.results.append(Site(node[0], read.line, node[1], what, edit))
        self.edited.add(node)
        if read.part:
            why = "is only a part of a cloud; another loss gets the whole cloud"
            self.parts.append(f"{node[0]}:{read.line} {node[1]}: {read.part} {why}")

    @cached_property
    def _scripted(self) -> set[str]:
        """Names of the functions that torch.jit compiles, by a decorator or a call."""
        calls = [n for code in self.project.code.values() for n in code if isinstance(n, ast.Call)]
        given = {last(dotted(c.args[0])) for c in calls if c.args and "jit." in dotted(c.func)}
        return given | {
            last(at[1])
            for at, tree in self.project.nodes.items()
            if any("jit." in ast.unparse(d) for d in getattr(tree, "decorator_list", ()))
        }

    def _is_used(self, method: Node) -> bool:
        """Whether code names the class of a method, or makes objects of classes that a config names."""
        name = last(method[1].rpartition(".")[0])
        nodes = (n for code in self.project.code.values() for n in code)
        used = any(isinstance(n, ast.Name | ast.Attribute | ast.Constant) and name in vars(n).values() for n in nodes)
        return used or any(b"import_module" in text for text in self.project.text.values())

    @cached_property
    def _networks_calling(self) -> dict[Node | None, list[Node]]:
        """Definition -> the forward methods of networks that call it."""
        callers: dict[Node | None, list[Node]] = {}
        for node in filter(self._is_network, sorted(self.reached)):
            calls = inside(self.project.nodes[node], ast.Call)
            for target in {self.project.resolve(node[0], call.func, node) for call in calls}:
                callers.setdefault(target, []).append(node)
        return callers

    def _layer_fed_by(self, function: Node) -> str:
        """file:line where a network's forward passes the value of `function` to one of its own layers, if any."""
        for node in self._networks_calling.get(function, ()):
            held: set[str] = set()

            def holds(tree: ast.AST, node: Node = node, held: set[str] = held) -> bool:
                called = (self.project.resolve(node[0], n.func, node) for n in inside(tree, ast.Call))
                return bool(names(tree) & held) or function in called

            for inner in self.project.code[node]:
                if isinstance(inner, ast.Call) and dotted(inner.func).startswith("self."):
                    if any(map(holds, inner.args)):
                        return f"{node[0]}:{inner.lineno}"
                elif isinstance(inner, ast.Assign) and holds(inner.value):
                    for target in inner.targets:
                        # Of an unpacked result the first two values are replaced, not the raw distances after them.
                        parts = target.elts[:2] if isinstance(target, ast.Tuple | ast.List) else [target]
                        held |= set().union(*map(names, parts))
        return ""

    def _uses(self, node: Node) -> None:
        """What a function does with Chamfer objects, and with functions from elsewhere."""
        code, silent = self.project.code[node], quiet(self.project, node)
        calls = [n for n in code if isinstance(n, ast.Call)]
        owners = {id(n.value) for n in code if isinstance(n, ast.Attribute)}
        passed = {id(c.func) for c in calls}
        for call in calls:
            if is_evaluation(last(dotted(call.func))):
                passed |= {id(argument) for argument in call.args} | {id(k.value) for k in call.keywords}
        for call in calls:
            if id(call) not in silent:
                self._call(node, call)
        for inner in code:
            if isinstance(inner, ast.Name | ast.Attribute) and isinstance(inner.ctx, ast.Load):
                if id(inner) in silent or id(inner) in owners or not (name := dotted(inner)):
                    continue
                if id(inner) not in passed:
                    for made in self.chamfers.find(node, name):
                        self._object(made, node)
                self._elsewhere(node, inner, name)

    def _call(self, node: Node, call: ast.Call) -> None:
        kind, shown, objects = self.chamfers.gives(node, call)
        name = dotted(call.func)
        if not kind and "." in name and len(call.args) > 1:
            # A method of an unknown object, with the name of an attribute that holds a Chamfer somewhere.
            attribute = f"self.{last(name)}"
            objects = [made for (_, held), some in self.chamfers.made.items() if held == attribute for made in some]
            kind = functions.NUMBER if objects and self.project.resolve(node[0], call.func, node) is None else ""
        if kind == functions.RAW and node not in self._seen:
            self._raw.append((node, call, shown))
        elif kind in (functions.NUMBER, functions.ONE_SIDED, functions.WEIGHED):
            self.ours |= {id(call)} if kind == functions.NUMBER else set()
            for made in objects:
                self._object(made, node)
        cls = self.chamfers.maker(node, call) if id(call) not in self.chamfers.bound and name else None
        if cls and self.chamfers.kind(cls) == functions.NUMBER and self.chamfers.makers.get(node) != cls:
            self._unnamed.setdefault(cls, (node, call.func))

    def _object(self, made: Made, node: Node) -> None:
        self._seen.add(node)
        self.using |= {node} if self.chamfers.kind(made.cls) == functions.NUMBER else set()
        self._objects.setdefault(id(made), (made, node))

    def _elsewhere(self, node: Node, inner: ast.Name | ast.Attribute, name: str) -> None:
        """A Chamfer function from outside of the project, or from a file of metrics, which itself stays as it is."""
        target = self.project.resolve(node[0], inner, node)
        if target is None:
            return
        if not target[0]:
            if "." not in target[1]:
                return  # a module, not a function of one
            function = last(target[1])
            if function[:1].isupper() or self.chamfers.kind(("", function)) in ("", functions.RAW):
                return
        else:
            from_metrics = target[0] != node[0] and is_evaluation_file(target[0]) and target not in self.reached
            read = self.chamfers.read(target) if from_metrics else None
            if read is None or read.kind not in _VALUES:
                return
        self.ours.add(id(inner))
        self._seen.add(node)
        self.using.add(node)
        self._imported.setdefault((node[0], name), (node, inner, " ".join(filter(None, target))))

    def _lambdas(self, node: Node) -> None:
        """Named lambdas that measure two clouds with an object that returns raw distances."""
        for inner in self.project.code[node]:
            if not (isinstance(inner, ast.Assign) and isinstance(inner.value, ast.Lambda)):
                continue
            within, name = {id(n) for n in ast.walk(inner.value)}, dotted(inner.targets[0])
            raw = [item for item in self._raw if id(item[1]) in within]
            if name and raw and len(inner.value.args.args) == 2:
                self._raw = [item for item in self._raw if item not in raw]
                self._wrap(node, inner, name, name, "a function of two clouds")

    def _wrap(self, at: Node, statement: ast.stmt, name: str, shown: str, what: str, after: str = "") -> None:
        """`name = training_loss(name)` after a statement that binds it."""
        edit = line_after(self.project, at, statement, after or name, f"{name} = training_loss({name})")
        self.results.append(Site(at[0], statement.lineno, shown, what, edit))

    def _take_raw(self) -> None:
        """Calls that return raw distances: after the numbers made of them goes a line each, where that is safe."""
        refused: set[Node] = set()
        for node, call, shown in self._raw:
            owner, read = self.project.owner(node), self.chamfers.read(node)
            if (read and read.kind == functions.RAW) or (owner and self.chamfers.kind(owner)):
                continue
            name = dotted(call.func) or shown
            given = [ast.unparse(argument).lower() for argument in call.args[:2]]
            in_network = self._is_network(node) and not any(text.startswith(GT_NAMES) for text in given)
            lines = [] if in_network else lines_for(self.chamfers, node, call)
            self._seen.add(node)
            for line in lines:
                what = f"two-sided Chamfer in {line.after}; all else stays its own"
                self.results.append(Site(node[0], call.lineno, node[1], what, line))
            if lines or node in refused:
                continue
            refused.add(node)
            if in_network:
                self._note(Kept, node, call, f"{name} is used inside the network")
            else:
                weighed = read and read.kind == functions.WEIGHED
                why = _WEIGHED if weighed else f"{name} returns distances or indices, which the code uses further"
                self._note(Refused, (node[0], node[1] or name), call, why)

    def _take_objects(self) -> None:
        """Chamfer objects: each is wrapped after the statement that makes it."""
        for made, node in self._objects.values():
            file, kind, shown = made.at[0], self.chamfers.kind(made.cls), made.shown
            attribute = made.name.startswith("self.") or isinstance(self.project.nodes[made.at], ast.ClassDef)
            if attribute and not self.attributes:
                continue
            where = (file, f"{made.at[1]}, {made.name}" if made.at[1] else made.name)
            if kind == functions.ONE_SIDED:
                self._note(Kept, where, made.statement, f"{shown} {_ONE_WAY}")
            elif kind == functions.WEIGHED:
                self._note(Refused, where, made.statement, f"{shown}: {_WEIGHED}")
            elif kind != functions.NUMBER:
                continue
            elif is_evaluation_file(file) and not made.at[1] and file != node[0]:
                self._imported.setdefault((node[0], made.name), (node, made.statement, shown))
            elif not by_name(made.at) and (not is_evaluation_file(file) or made.at in self.reached):
                self._wrap(made.at, made.statement, made.name, where[1], f"{shown} object, one number")

    def _take_unnamed(self) -> None:
        """Classes whose objects no statement binds to a name: their `forward` gets the decorator."""
        for cls in self.reached:
            tree = self.project.nodes[cls]
            if isinstance(tree, ast.ClassDef) and tree.decorator_list and self.chamfers.kind(cls) == functions.NUMBER:
                self._unnamed.setdefault(cls, (cls, tree))
        for cls, (node, called) in sorted(self._unnamed.items()):
            forward = self.chamfers.forward(cls)
            read = self.chamfers.read(forward) if forward else None
            if forward and read and read.kind in _VALUES:
                self._decorate(forward, read)
            elif not cls[0]:
                self._imported.setdefault((node[0], dotted(called)), (node, called, cls[1]))
            else:
                why = f"a {last(cls[1])} object is made here that no statement binds to a name"
                self._note(Refused, (node[0], node[1] or last(cls[1])), called, why)

    def _take_imported(self) -> None:
        """What comes from elsewhere is wrapped after the nearest import that binds it."""
        for (file, name), (node, inner, what) in self._imported.items():
            for at in [*self.project.around(node), (file, "")]:
                imports = [
                    (statement, bound)
                    for statement in self.project.code[at]
                    if isinstance(statement, ast.Import | ast.ImportFrom)
                    for bound in [t for t in targets(statement) if name == t or name.startswith(f"{t}.")][:1]
                ]
                for statement, bound in imports:
                    self._wrap(at, statement, name, name, f"{what}, imported", after=bound)
                if imports:
                    break
            else:
                self._note(Refused, (file, name), inner, f"{what} is bound by no import that names it")

    def _report_unknown(self) -> None:
        """Functions of two clouds with a Chamfer's name whose code does not show what they measure."""
        for node in sorted(self.reached - self.loops - self._seen - self.edited):
            function, read = self.project.nodes[node], self.chamfers.read(node)
            kind, given = read.kind if read else "", parameters(function)
            if not (_CD.search(last(node[1])) or kind == functions.WEIGHED) or len(given) < 2:
                continue
            if kind == functions.RAW or self._is_class_call(node) or self._uses_edited(node):
                continue
            defaults = function.args.defaults if isinstance(function, ast.FunctionDef) else []
            if kind == functions.WEIGHED and len(given) - len(defaults) == 2 and node not in self.project.duplicates:
                # An option such as an exponent: whether it is a distance of the two clouds is found when it runs.
                edit, line = decorator(*node, "training_loss"), getattr(function, "lineno", 1)
                self.results.append(Site(node[0], line, node[1], "two-sided Chamfer with options", edit))
                self.edited.add(node)
            else:
                unknown = "is called like a Chamfer distance, but what it measures cannot be told from its code"
                self._note(Refused, node, function, _WEIGHED if kind == functions.WEIGHED else unknown)

    def _uses_edited(self, node: Node) -> bool:
        return bool(self.project.uses(node)[0] & self.edited)

    def _is_network(self, node: Node) -> bool:
        return last(node[1]) == "forward" and self.project.owner(node) is not None

    def _is_class_call(self, node: Node) -> bool:
        """Whether a method is what a call of an object runs, or belongs to an autograd function."""
        owner = self.project.owner(node)
        return owner is not None and (last(node[1]) in ("forward", "__call__") or self.chamfers.is_autograd(owner))
