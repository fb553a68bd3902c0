"""The losses on the way of training: functions, objects, and what is imported from elsewhere.

A function of two clouds is decorated; an object, or a function from elsewhere, is wrapped behind the statement that
binds it. Which calls train, and what a wrapped object gives, is found out when it runs.
"""

from __future__ import annotations

import ast
import re

from ...patching import decorator
from ...patching.placing import targets
from . import reading, values
from .evaluating import by_name, is_evaluation, is_evaluation_file, quiet
from .project import Node, dotted
from .reading import Chamfers, Made, last, parameters
from .sites import Kept, Refused, Site, line_behind
from .values import GT_NAMES, names

_CD = re.compile(r"chamfer|(^|_)cd(_|\d|$)", re.IGNORECASE)
_WEIGHED = "a further argument takes part in its value, which a loss of two clouds knows nothing of"


class Finder:
    """Looks through the functions `reached` from training. found: what became of each loss.

    ours: uses (by id) of what is replaced. edited: functions that get a decorator. using: functions with either.
    attributes: whether objects that hang on `self` are wanted.
    """

    def __init__(self, chamfers: Chamfers, reached: set[Node], loops: set[Node], attributes: bool = True) -> None:
        self.chamfers, self.project = chamfers, chamfers.project
        self.reached, self.loops, self.attributes = reached, loops, attributes
        self.found: list[Site | Kept | Refused] = []
        self.edited: set[Node] = set()
        self.ours: set[int] = set()
        self.using: set[Node] = set()
        self._seen: set[Node] = set()
        self._objects: dict[int, tuple[Made, Node]] = {}
        self._imported: dict[tuple[str, str], tuple[Node, ast.AST, str]] = {}
        self._unnamed: dict[Node, tuple[Node, ast.AST]] = {}
        self._raw: list[tuple[Node, ast.Call, str]] = []
        for node in sorted(reached):
            self._function(node)
        for node in sorted(reached):
            self._uses(node)
        self._take_raw()
        self._take_objects()
        self._take_unnamed()
        self._take_imported()
        self._not_judged()
        self.found.sort(key=lambda item: (item.file, item.line))
        self.using |= {node for node in reached - self.edited if self._leads(node)}

    def _function(self, node: Node) -> None:
        """A function or method that measures its two clouds itself."""
        function = self.project.nodes[node]
        if not isinstance(function, ast.FunctionDef) or node in self.loops or self._is_class_call(node):
            return
        read = self.chamfers.read(node)
        if read is None or read.kind == reading.RAW:
            return
        file, name = node
        self._seen.add(node)
        if read.kind == reading.ONE_SIDED:
            self.found.append(Kept(file, read.line, name, "measures one direction only (partial matching)"))
        elif read.kind in (reading.VALUE_AND_MORE, reading.WEIGHED):
            self._seen.discard(node)  # a line may replace the value alone
        elif flow := self._into_network(node):
            why = f"its value also goes into the network ({flow}), so it is part of the architecture"
            self.found.append(Refused(file, read.line, name, why))
        else:
            self._decorate(node, read.line, read.kind)

    def _decorate(self, node: Node, line: int, kind: str) -> None:
        file, name = node
        if node in self.project.twice:
            self.found.append(Refused(file, line, name, "is defined more than once"))
            return
        vector = kind == reading.PER_SAMPLE
        why = "two-sided Chamfer, " + ("one value per sample" if vector else "one number")
        edit = decorator(file, name, "trains_with_loss", arguments="(per_sample=True)" if vector else "")
        self.found.append(Site(file, line, name, why, edit))
        self.edited.add(node)

    def _uses(self, node: Node) -> None:
        """What a function does with Chamfer objects, and with functions from elsewhere."""
        own, silent = self.project.own[node], quiet(self.project, node)
        calls = [n for n in own if isinstance(n, ast.Call)]
        owners = {id(n.value) for n in own if isinstance(n, ast.Attribute)}
        passed = {id(c.func) for c in calls}
        for call in calls:
            if is_evaluation(last(dotted(call.func))):
                passed |= {id(argument) for argument in call.args} | {id(k.value) for k in call.keywords}
        for call in calls:
            if id(call) not in silent:
                self._call(node, call)
        for inner in own:
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
            # An attribute of an object that nothing is known of, called like one that holds a Chamfer.
            objects = [
                m for (_, held), all_ in self.chamfers.made.items() if held == f"self.{last(name)}" for m in all_
            ]
            kind = reading.NUMBER if objects and self.project.resolve(node[0], call.func, node) is None else ""
        if kind == reading.RAW and node not in self._seen:
            self._raw.append((node, call, shown))
        elif kind in (reading.NUMBER, reading.ONE_SIDED, reading.WEIGHED):
            self.ours |= {id(call)} if kind == reading.NUMBER else set()
            for made in objects:
                self._object(made, node)
        cls = self.chamfers.maker(node, call) if id(call) not in self.chamfers.bound and name else None
        if cls and self.chamfers.kind(cls) == reading.NUMBER and self.chamfers.makers.get(node) != cls:
            self._unnamed.setdefault(cls, (node, call.func))

    def _object(self, made: Made, node: Node) -> None:
        self._seen.add(node)
        self.using |= {node} if self.chamfers.kind(made.cls) == reading.NUMBER else set()
        self._objects.setdefault(id(made), (made, node))

    def _elsewhere(self, node: Node, inner: ast.Name | ast.Attribute, name: str) -> None:
        """A function from outside of the project, or from a file of metrics, which stays as it is."""
        target = self.project.resolve(node[0], inner, node)
        if (node[0], name) in self.project.modules:
            return
        outside = self.project.outside(node[0]).get(name) or ("" if target is None or target[0] else target[1])
        if outside:
            measured = last(outside)
            if (
                "chamfer" not in measured.lower()
                or measured[:1].isupper()
                or self.chamfers.kind(("", measured)) == reading.RAW
            ):
                return
        elif target and target[0] != node[0] and is_evaluation_file(target[0]) and target not in self.reached:
            read = self.chamfers.read(target) if isinstance(self.project.nodes.get(target), ast.FunctionDef) else None
            if read is None or read.kind not in (reading.TWO_SIDED, reading.PER_SAMPLE):
                return
        else:
            return
        self.ours.add(id(inner))
        self._seen.add(node)
        self.using.add(node)
        self._imported.setdefault((node[0], name), (node, inner, outside or f"{target[0]} {target[1]}"))  # type: ignore

    def _take_raw(self) -> None:
        told: set[Node] = set()
        for node, call, shown in self._raw:
            owner, read = self.project.owner(node), self.chamfers.read(node)
            if (read and read.kind == reading.RAW) or (owner and self.chamfers.kind(owner)):
                continue
            name = dotted(call.func) or shown
            given = [ast.unparse(argument).lower() for argument in call.args[:2]]
            inside = self._is_network(node) and not any(text.startswith(GT_NAMES) for text in given)
            behind = [] if inside else values.lines(self.chamfers, node, call)
            self._seen.add(node)
            for line in behind:
                why = f"two-sided Chamfer in {line.after}; all else stays its own"
                self.found.append(Site(node[0], call.lineno, node[1], why, line))
            if inside and node not in told:
                self.found.append(Kept(node[0], call.lineno, node[1], f"{name} is used inside the network"))
            elif not behind and node not in told:
                weighed = read and read.kind == reading.WEIGHED
                why = _WEIGHED if weighed else f"{name} gives distances or indices that the code goes on with"
                self.found.append(Refused(node[0], call.lineno, node[1] or name, why))
            told |= {node} if not behind else set()

    def _take_objects(self) -> None:
        for made, node in self._objects.values():
            file, kind = made.at[0], self.chamfers.kind(made.cls)
            hangs = made.name.startswith("self.") or isinstance(self.project.nodes[made.at], ast.ClassDef)
            if hangs and not self.attributes:
                continue
            where = f"{made.at[1]}, {made.name}" if made.at[1] else made.name
            at = made.statement.lineno
            if kind == reading.ONE_SIDED:
                self.found.append(Kept(file, at, where, f"{made.shown} measures one direction only (partial matching)"))
            elif kind == reading.WEIGHED:
                self.found.append(Refused(file, at, where, f"{made.shown}: {_WEIGHED}"))
            elif kind == reading.NUMBER and is_evaluation_file(file) and not made.at[1] and file != node[0]:
                self._imported.setdefault((node[0], made.name), (node, made.statement, made.shown))
            elif (
                kind == reading.NUMBER
                and not by_name(made.at)
                and (not is_evaluation_file(file) or made.at in self.reached)
            ):
                edit = line_behind(self.project, made.at, made.statement, made.name, _wrapped(made.name))
                self.found.append(Site(file, at, where, f"{made.shown} object, one number", edit))

    def _take_imported(self) -> None:
        for (file, name), (node, inner, what) in self._imported.items():
            done = False
            for at in [*self.project.around(node), (file, "")]:
                for statement in self.project.own[at]:
                    if not isinstance(statement, ast.Import | ast.ImportFrom):
                        continue
                    after = next((t for t in targets(statement) if name == t or name.startswith(f"{t}.")), None)
                    if after and not done:
                        edit = line_behind(self.project, at, statement, after, _wrapped(name))
                        self.found.append(Site(file, statement.lineno, name, f"{what}, imported", edit))
                done = done or any(isinstance(s, Site) and s.file == file and s.name == name for s in self.found)
            if not done:
                why = f"{what} comes by an import that names it nowhere"
                self.found.append(Refused(file, getattr(inner, "lineno", 1), name, why))

    def _take_unnamed(self) -> None:
        """Classes whose objects no statement binds to a name: their `forward` is what can be replaced."""
        for cls in self.reached:
            tree = self.project.nodes[cls]
            if isinstance(tree, ast.ClassDef) and tree.decorator_list and self.chamfers.kind(cls) == reading.NUMBER:
                self._unnamed.setdefault(cls, (cls, tree))
        for cls, (node, called) in sorted(self._unnamed.items()):
            forward = (self.project.method(cls, "forward") or self.project.method(cls, "__call__")) if cls[0] else None
            read = self.chamfers.read(forward) if forward else None
            if forward and read and read.kind in (reading.TWO_SIDED, reading.PER_SAMPLE):
                self._decorate(forward, read.line, read.kind)
            elif not cls[0]:
                self._imported.setdefault((node[0], dotted(called)), (node, called, cls[1]))
            else:
                why = f"a {last(cls[1])} object is made here that no statement binds to a name"
                self.found.append(Refused(node[0], called.lineno, node[1] or last(cls[1]), why))  # type: ignore

    def _not_judged(self) -> None:
        """Functions called like a Chamfer of two clouds of which nothing could be told."""
        for node in sorted(self.reached - self.loops - self._seen - self.edited):
            function, name = self.project.nodes[node], last(node[1])
            read = self.chamfers.read(node)
            told = _CD.search(name) or (read and read.kind == reading.WEIGHED)
            if not isinstance(function, ast.FunctionDef) or not told or len(parameters(function)) < 2:
                continue
            if (read and read.kind == reading.RAW) or self._is_class_call(node) or self._leads(node):
                continue
            why = "is called like a Chamfer distance, but what it measures cannot be told from its code"
            why = _WEIGHED if read and read.kind == reading.WEIGHED else why
            self.found.append(Refused(node[0], function.lineno, node[1], why))

    def replaces(self, node: Node, called: ast.expr) -> bool:
        """Whether a function, reached or not, calls an object or an imported function that is replaced."""
        name = dotted(called)
        return (node[0], name) in self._imported or any(
            id(made) in self._objects for made in self.chamfers.find(node, name)
        )

    def _leads(self, node: Node) -> bool:
        return bool(self.project.uses(node)[0] & self.edited)

    def _is_network(self, node: Node) -> bool:
        return last(node[1]) == "forward" and self.project.owner(node) is not None

    def _is_class_call(self, node: Node) -> bool:
        """The method that makes an object of a class callable, or one of an autograd function."""
        owner = self.project.owner(node)
        tree = self.project.nodes[owner] if owner else None
        function = isinstance(tree, ast.ClassDef) and any(dotted(base).endswith("Function") for base in tree.bases)
        return owner is not None and (function or last(node[1]) in ("forward", "__call__"))

    def _into_network(self, site: Node) -> str:
        """Where a network's forward feeds the site's value into one of its own layers."""

        def takes(within: Node, expression: ast.expr, tainted: set[str]) -> bool:
            inner = (n.func for n in ast.walk(expression) if isinstance(n, ast.Call))
            return bool(names(expression) & tainted) or any(
                self.project.resolve(within[0], called, within) == site for called in inner
            )

        for node in sorted(self.reached):
            tainted: set[str] = set()
            for inner in self.project.own[node] if self._is_network(node) else ():
                layer = isinstance(inner, ast.Call) and dotted(inner.func).startswith("self.")
                if layer and any(takes(node, argument, tainted) for argument in inner.args):  # type: ignore[attr-defined]
                    return f"{node[0]}:{inner.lineno}"  # type: ignore[attr-defined]
                if isinstance(inner, ast.Assign) and takes(node, inner.value, tainted):
                    for target in inner.targets:
                        # Of an unpacked result the leading values become ours, not the raw distances behind them.
                        parts = target.elts[:2] if isinstance(target, ast.Tuple | ast.List) else [target]
                        tainted |= set().union(*map(names, parts))
        return ""


def _wrapped(name: str) -> str:
    return f"{name} = training_loss({name})"
