"""The losses on the way of training: functions, objects, and what is imported from elsewhere.

A function of two clouds is decorated; an object, or a function from elsewhere, is wrapped behind the statement that
binds it. Which calls train, and what a wrapped object gives, is found out when it runs.
"""

from __future__ import annotations

import ast
import re
from functools import cached_property

from ...patching import decorator
from ...patching.placing import targets
from ..gates import GT_NAMES
from ..project import Node, dotted
from . import reading, values
from .evaluating import by_name, is_evaluation, is_evaluation_file, quiet
from .reading import Chamfers, Made, Reading, last, parameters
from .sites import Kept, Refused, Site, line_behind
from .values import names

_CD = re.compile(r"chamfer|(^|_)cd(_|\d|$)", re.IGNORECASE)
_VALUES = (reading.TWO_SIDED, reading.PER_SAMPLE)
_ONE_WAY = "measures one direction only (partial matching)"
_WEIGHED = "a further argument takes part in its value, which a loss of two clouds knows nothing of"


class Finder:
    """Looks through the functions `reached` from training. found: what became of each loss.

    ours: uses (by id) of what is replaced. edited: functions that get a decorator. using: functions with either.
    attributes: whether objects that hang on `self` are wanted. everywhere: whether also the `forward` of each Chamfer
    class is to be decorated, wherever its objects go.
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
        for node in sorted(reached):
            self._lambdas(node)
        self._take_raw()
        self._take_objects()
        self._take_unnamed()
        self._take_imported()
        self._not_judged()
        self.found.sort(key=lambda item: (item.file, item.line))
        self.using |= {node for node in reached - self.edited if self._leads(node)}

    def _function(self, node: Node) -> None:
        """A function or method that measures its two clouds itself."""
        read = self.chamfers.read(node)
        if read is None or read.kind == reading.RAW or node in self.loops:
            return
        if self._is_class_call(node) and not (self.everywhere and read.kind in _VALUES and self._is_used(node)):
            return
        if read.kind in (reading.VALUE_AND_MORE, reading.WEIGHED):
            return  # a line may replace the value alone
        self._seen.add(node)
        if read.kind == reading.ONE_SIDED:
            self._tell(Kept, node, read, _ONE_WAY)
        elif flow := self._into_network(node):
            why = f"its value also goes into the network ({flow}), so it is part of the architecture"
            self._tell(Refused, node, read, why)
        else:
            self._decorate(node, read)

    @cached_property
    def _scripted(self) -> set[str]:
        """Names of functions that torch.jit compiles, by a decorator or a call."""
        calls = [n for own in self.project.own.values() for n in own if isinstance(n, ast.Call)]
        given = {last(dotted(c.args[0])) for c in calls if c.args and "jit." in dotted(c.func)}
        return given | {
            last(at[1])
            for at, tree in self.project.nodes.items()
            if any("jit." in ast.unparse(d) for d in getattr(tree, "decorator_list", ()))
        }

    def _is_used(self, method: Node) -> bool:
        """Whether code names the class of a method, or makes objects of classes that a config names."""
        name = last(method[1].rpartition(".")[0])
        nodes = (n for own in self.project.own.values() for n in own)
        used = any(isinstance(n, ast.Name | ast.Attribute | ast.Constant) and name in vars(n).values() for n in nodes)
        return used or any(b"import_module" in text for text in self.project.text.values())

    def _tell(self, kind: type[Kept | Refused], node: Node, at: Reading | ast.AST, what: str) -> None:
        line = at.line if isinstance(at, Reading) else getattr(at, "lineno", 1)
        self.found.append(kind(node[0], line, node[1], what))

    def _decorate(self, node: Node, read: Reading) -> None:
        if node in self.project.twice:
            self._tell(Refused, node, read, "is defined more than once")
            return
        if last(node[1]) in self._scripted:
            self._tell(Refused, node, read, "is compiled by torch.jit, which takes no decorated function")
            return
        vector = read.kind == reading.PER_SAMPLE
        why = "two-sided Chamfer, " + ("one value per sample" if vector else "one number")
        edit = decorator(*node, "trains_with_loss", arguments="(per_sample=True)" if vector else "")
        self.found.append(Site(node[0], read.line, node[1], why, edit))
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
        if target is None:
            return
        if not target[0]:
            measured = last(target[1])
            if "." not in target[1]:
                return  # a module, not a function of one
            if measured[:1].isupper() or self.chamfers.kind(("", measured)) in ("", reading.RAW):
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
            if behind or node in told:
                continue
            told.add(node)
            if inside:
                self._tell(Kept, node, call, f"{name} is used inside the network")
            else:
                weighed = read and read.kind == reading.WEIGHED
                why = _WEIGHED if weighed else f"{name} gives distances or indices that the code goes on with"
                self._tell(Refused, (node[0], node[1] or name), call, why)

    def _take_objects(self) -> None:
        for made, node in self._objects.values():
            file, kind, shown = made.at[0], self.chamfers.kind(made.cls), made.shown
            hangs = made.name.startswith("self.") or isinstance(self.project.nodes[made.at], ast.ClassDef)
            if hangs and not self.attributes:
                continue
            where = (file, f"{made.at[1]}, {made.name}" if made.at[1] else made.name)
            if kind == reading.ONE_SIDED:
                self._tell(Kept, where, made.statement, f"{shown} {_ONE_WAY}")
            elif kind == reading.WEIGHED:
                self._tell(Refused, where, made.statement, f"{shown}: {_WEIGHED}")
            elif kind != reading.NUMBER:
                continue
            elif is_evaluation_file(file) and not made.at[1] and file != node[0]:
                self._imported.setdefault((node[0], made.name), (node, made.statement, shown))
            elif not by_name(made.at) and (not is_evaluation_file(file) or made.at in self.reached):
                edit = line_behind(self.project, made.at, made.statement, made.name, _wrapped(made.name))
                self.found.append(Site(file, made.statement.lineno, where[1], f"{shown} object, one number", edit))

    def _take_imported(self) -> None:
        for (file, name), (node, inner, what) in self._imported.items():
            for at in [*self.project.around(node), (file, "")]:
                found = [
                    Site(file, s.lineno, name, f"{what}, imported",
                         line_behind(self.project, at, s, after, _wrapped(name)))
                    for s in self.project.own[at] if isinstance(s, ast.Import | ast.ImportFrom)
                    for after in [t for t in targets(s) if name == t or name.startswith(f"{t}.")][:1]
                ]  # fmt: skip
                if found:
                    self.found += found
                    break
            else:
                self._tell(Refused, (file, name), inner, f"{what} comes by an import that names it nowhere")

    def _take_unnamed(self) -> None:
        """Classes whose objects no statement binds to a name: their `forward` is what can be replaced."""
        for cls in self.reached:
            tree = self.project.nodes[cls]
            if isinstance(tree, ast.ClassDef) and tree.decorator_list and self.chamfers.kind(cls) == reading.NUMBER:
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
                self._tell(Refused, (node[0], node[1] or last(cls[1])), called, why)

    def _not_judged(self) -> None:
        """Functions called like a Chamfer of two clouds of which nothing could be told."""
        for node in sorted(self.reached - self.loops - self._seen - self.edited):
            function, read = self.project.nodes[node], self.chamfers.read(node)
            kind = read.kind if read else ""
            if not (_CD.search(last(node[1])) or kind == reading.WEIGHED) or len(parameters(function)) < 2:
                continue
            if kind == reading.RAW or self._is_class_call(node) or self._leads(node):
                continue
            if kind == reading.WEIGHED and len(_required(function)) == 2 and node not in self.project.twice:
                # An exponent, say: the run finds out whether it is a distance of the two clouds.
                why = "two-sided Chamfer with options"
                self.found.append(Site(node[0], function.lineno, node[1], why, decorator(*node, "training_loss")))  # type: ignore[attr-defined]
                self.edited.add(node)
            else:
                told = "is called like a Chamfer distance, but what it measures cannot be told from its code"
                self._tell(Refused, node, function, _WEIGHED if kind == reading.WEIGHED else told)

    def _lambdas(self, node: Node) -> None:
        """Names of lambdas that measure two clouds by an object that gives raw distances."""
        for inner in self.project.own[node]:
            if not (isinstance(inner, ast.Assign) and isinstance(inner.value, ast.Lambda)):
                continue
            within, name = {id(n) for n in ast.walk(inner.value)}, dotted(inner.targets[0])
            raw = [item for item in self._raw if id(item[1]) in within]
            if name and raw and len(inner.value.args.args) == 2:
                self._raw = [item for item in self._raw if item not in raw]
                edit = line_behind(self.project, node, inner, name, _wrapped(name))
                self.found.append(Site(node[0], inner.lineno, name, "a function of two clouds", edit))

    def replaces(self, node: Node, called: ast.expr) -> bool:
        """Whether a function, reached or not, calls an object or an imported function that is replaced."""
        name = dotted(called)
        made = self.chamfers.find(node, name)
        return (node[0], name) in self._imported or any(id(one) in self._objects for one in made)

    def _leads(self, node: Node) -> bool:
        return bool(self.project.uses(node)[0] & self.edited)

    def _is_network(self, node: Node) -> bool:
        return last(node[1]) == "forward" and self.project.owner(node) is not None

    def _is_class_call(self, node: Node) -> bool:
        """The method that makes an object of a class callable, or one of an autograd function."""
        owner = self.project.owner(node)
        return owner is not None and (last(node[1]) in ("forward", "__call__") or self.chamfers.is_autograd(owner))

    @cached_property
    def _networks_calling(self) -> dict[Node | None, list[Node]]:
        """The forward methods of networks that call a definition, by that definition."""
        found: dict[Node | None, list[Node]] = {}
        for node in filter(self._is_network, sorted(self.reached)):
            calls = (n.func for n in ast.walk(self.project.nodes[node]) if isinstance(n, ast.Call))
            for target in {self.project.resolve(node[0], call, node) for call in calls}:
                found.setdefault(target, []).append(node)
        return found

    def _into_network(self, site: Node) -> str:
        """Where a network's forward feeds the site's value into one of its own layers."""
        for node in self._networks_calling.get(site, ()):
            held: set[str] = set()

            def holds(tree: ast.AST, node: Node = node, held: set[str] = held) -> bool:
                calls = (n.func for n in ast.walk(tree) if isinstance(n, ast.Call))
                return bool(names(tree) & held) or any(self.project.resolve(node[0], f, node) == site for f in calls)

            for inner in self.project.own[node]:
                if isinstance(inner, ast.Call) and dotted(inner.func).startswith("self."):
                    if any(map(holds, inner.args)):
                        return f"{node[0]}:{inner.lineno}"
                elif isinstance(inner, ast.Assign) and holds(inner.value):
                    for target in inner.targets:
                        # Of an unpacked result the leading values become ours, not the raw distances behind them.
                        parts = target.elts[:2] if isinstance(target, ast.Tuple | ast.List) else [target]
                        held |= set().union(*map(names, parts))
        return ""


def _required(function: ast.AST) -> list[str]:
    """The parameters of a function, without those that have a default."""
    given = parameters(function)
    arguments = getattr(function, "args", None)
    return given[: len(given) - len(arguments.defaults)] if arguments else given


def _wrapped(name: str) -> str:
    return f"{name} = training_loss({name})"
