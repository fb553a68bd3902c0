"""Hosts with a training loop of their own: how one is recognised, and what is said of it."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...arguments import counted
from ...errors import HostError
from ...patching import Recipe, decorator
from ..base import Clone, Finding, Host, NoTraining
from ..project import Node, Project, dotted, last, last_name, parameters
from . import chosen_by_string, phases
from .chamfers import Chamfers
from .losses import Search
from .records import BY_HAND, Kept, Refused, Site

NAME = "host with its own training loop"


@dataclass(frozen=True)
class Loops:
    """What trains in a codebase, and with which Chamfer distances.

    Attributes:
        loops: where it trains.
        sites: the losses that are replaced.
        chains: where a loss is chosen by a string, so that our names must be let through.
        validators: functions that validate while gradients are recorded.
        warnings: what means something else with another loss.
        broken: files that could not be read, and why.
        count: how many files were read.
    """

    root: Path
    loops: tuple[str, ...]
    sites: tuple[Site, ...]
    chains: tuple[Site, ...] = ()
    validators: tuple[Site, ...] = ()
    kept: tuple[Kept, ...] = ()
    refused: tuple[Refused, ...] = ()
    warnings: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    count: int = 0

    @property
    def recipe(self) -> Recipe:
        """All lines: they only make sense together."""
        sites = (*self.sites, *self.chains, *self.validators)
        return Recipe("training losses", tuple(dict.fromkeys(site.edit for site in sites)))


def find(clone: Clone, others: tuple[Host, ...] = ()) -> Host:
    """The loops in `clone` that do not lead to `others`. Raises HostError saying what was found where."""
    theirs = [other.nodes for other in others if other.nodes]
    found = search(clone.project, theirs[0]) if theirs else recognise(clone.project)
    if others and not (theirs and found.sites):
        raise NoTraining(f"{clone.root} has no training loop but those of the {others[0].kind}")
    chosen = [f"{site.file}:{site.line} {site.name}: {site.what}" for site in found.chains]
    source = "APML_LOSS (apml run --loss)"
    if chosen:
        source = f"the string (or mapping) the host chooses its loss by: {'; '.join(chosen)}; {source} overrides it"
    return Host(
        found.root,
        NAME,
        (
            ("trains in", ", ".join(found.loops)),
            ("losses", ", ".join(f"{s.file} ({s.name})" for s in found.sites)),
            *(("not looked at", text) for text in found.broken),
        ),
        (found.recipe,),
        tuple(map(str, found.sites)),
        (*map(str, found.kept), *map(str, found.validators), "every call without a gradient"),
        tuple(map(str, found.refused)),
        found.warnings,
        source=source,
        then="Now run it with APML_LOSS='{NAME: APML, reduction: mean}' in the environment"
        + (", or write that where the host chooses its loss." if chosen else "."),
        detail=found,
    )


def check(found: Finding, config: dict[str, Any]) -> bool:
    """False: these hosts choose their loss in many ways, so none of their configs has a known form."""
    return False


def recognise(project: Project) -> Loops:
    """What trains in a codebase with a loop of its own.

    Raises HostError if nothing trains with a Chamfer distance, or with none that can be replaced safely. The message
    says what was found where, and which two lines do it by hand.
    """
    root, found = project.root, search(project)
    if found.sites:
        return found
    broken = "".join(f"{text}, so it was not looked at. " for text in found.broken)
    looked = f"Looked through {counted(found.count, 'Python file')}"
    if found.refused:
        reasons = "\n  ".join(map(str, found.refused))
        raise HostError(f"{broken}{root} trains with a Chamfer that cannot be replaced safely:\n  {reasons}")
    if not found.loops:
        raise NoTraining(f"{broken}{root} has no training loop: {looked} for a call of .backward()")
    raise HostError(
        f"{broken}{root} trains ({', '.join(found.loops[:4])}), but with no Chamfer distance this plugin can tell: "
        f"{looked} for a function of two clouds that averages both directions of a Chamfer, and for an object or an "
        "imported function that does. By hand, after the line that makes the loss:\n    " + "\n    ".join(BY_HAND)
    )


def search(project: Project, without: Set[Node] = frozenset()) -> Loops:
    """What trains in a project, and with which Chamfer distances.

    without: definitions of a host of another kind (its builder, its models). Loops that lead to one of them, and what
    these use, are left out.
    """
    theirs = project.reachable(set(without), set()) | without if without else set()
    loops = phases.training(project)
    evaluation = phases.evaluating(project, loops)
    if without:
        loops = {loop for loop in loops if not project.reachable({loop}, evaluation) & without}
    roots = set(loops)
    if not loops and not without:
        roots = set(project.nodes) - evaluation
    elif loops and any(_imports_by_name(project, file) for file in project.trees):
        roots |= {owner for node in project.nodes if node[1].endswith(".forward") and (owner := project.owner(node))}
    found = Search(Chamfers(project), project.reachable(roots - theirs, evaluation | theirs, by_name=True), loops)
    # A registry, a config, a callback or a factory may lead from the loop to the loss, and no name shows it. Then the
    # files count that imports tie to the loop's file, and at last every Chamfer class in them.
    for everywhere in (False, True):
        if not found.results and loops and not without:
            found = Search(found.chamfers, _near(project, loops) - evaluation, loops, everywhere=everywhere)
    return _loops(project, found, loops, evaluation)


def sites_for(project: Project, nodes: Iterable[Node]) -> Loops:
    """What definitions, such as a registry's model classes, train with, apart from attributes of `self`."""
    evaluation = phases.evaluating(project, phases.training(project))
    reached = project.reachable(set(nodes), evaluation)
    return _loops(project, Search(Chamfers(project), reached, set(), attributes=False), set(), evaluation)


def _near(project: Project, loops: set[Node]) -> set[Node]:
    """The definitions in files that imports tie to the loops' files; all of them if something imports by name."""
    if any(_imports_by_name(project, file) for file in project.trees):
        return set(project.nodes)
    imports, files, grown = project.imports, {loop[0] for loop in loops}, True
    while grown:
        tied = {f for f in imports if imports[f] & files} | {t for f in files for t in imports.get(f, ())}
        grown = bool(tied - files)
        files |= tied
    return {node for node in project.nodes if node[0] in files}


def _imports_by_name(project: Project, file: str) -> bool:
    """Whether a file makes models by names known only at run time: any network may be what is trained."""
    text = project.text[file]
    return (b"import" in text or b"registry" in text.lower()) and any(
        isinstance(node, ast.Call) and dotted(node.func).endswith(("import_module", "__import__", "Registry"))
        for at in project.definitions[file]
        for node in project.code[at]
    )


def _loops(project: Project, found: Search, loops: set[Node], evaluation: set[Node]) -> Loops:
    sites = tuple(item for item in found.results if isinstance(item, Site))
    leading = {loop for loop in loops if found.edited & project.reachable({loop}, evaluation)}
    by_name = {loop for loop in loops if _imports_by_name(project, loop[0])}
    shown = (leading or by_name or loops) if found.edited else loops
    return Loops(
        project.root,
        tuple(f"{at[0]}:{getattr(project.nodes[at], 'lineno', 1)} {at[1]}".rstrip() for at in sorted(shown)),
        sites,
        tuple(chosen_by_string.find(found)) if sites else (),
        tuple(_validators(found, evaluation)),
        tuple(item for item in found.results if isinstance(item, Kept)),
        tuple(item for item in found.results if isinstance(item, Refused)),
        (*_nonlinear(found), *found.parts),
        tuple(project.broken.values()),
        project.count,
    )


def _validators(found: Search, evaluation: set[Node]) -> Iterator[Site]:
    """Functions that evaluate with a loss while gradients are recorded: a decorator keeps the host's loss there."""
    project, replaced = found.project, found.edited | found.using
    for node in sorted(evaluation & phases.calling(project, "eval")):
        function, silent = project.nodes[node], phases.quiet(project, node)
        if not isinstance(function, ast.FunctionDef) or phases.is_quiet(function.decorator_list):
            continue
        for call in project.code[node]:
            if not isinstance(call, ast.Call) or id(call) in silent:
                continue
            target = project.resolve(node[0], call.func, node)
            called = {target} if target and isinstance(project.nodes.get(target), ast.FunctionDef) else set()
            if target is None and isinstance(call.func, ast.Attribute):
                # A method of an unknown object: any class with such a method may be meant, its constructor included.
                methods = project.methods.get(call.func.attr, ())
                inits = {(m[0], m[1].rpartition(".")[0] + ".__init__") for m in methods}
                called = {*methods, *inits & project.nodes.keys()}
            # A criterion that was passed in is known by how it is called: with two arguments.
            passed = isinstance(call.func, ast.Name) and call.func.id in parameters(function) and len(call.args) > 1
            if passed or replaced & project.reachable(called, set()) or found.replaces(node, call.func):
                what = "validates while gradients are recorded: keeps the host's loss"
                yield Site(node[0], call.lineno, node[1], what, decorator(node[0], node[1], "keeps_host_loss"))
                break


_NONLINEAR = {
    "acosh", "arccosh", "asinh", "arcsinh", "log", "log1p", "log10", "exp", "expm1", "sqrt", "rsqrt", "pow", "square",
    "tanh", "sigmoid", "reciprocal", "atan", "arctan", "softplus",
}  # fmt: skip
_DETACHING = {"item", "detach", "cpu"}


def _nonlinear(found: Search) -> tuple[str, ...]:
    """`arccosh(1 + loss)` and the like around a replaced value, with file and line; not weights and sums."""
    warnings: dict[str, None] = {}
    for node in sorted(found.using):
        holding: set[str] = set()
        for inner in found.project.code[node]:
            if isinstance(inner, ast.Assign | ast.AugAssign) and _is_replaced(found, node, inner.value, holding):
                targets = inner.targets if isinstance(inner, ast.Assign) else [inner.target]
                holding |= {dotted(n) for t in targets for n in ast.walk(t)} - {"", "_"}
            for what, part in _nonlinear_parts(inner):
                if _is_replaced(found, node, part, holding):
                    place = f"{node[0]}:{part.lineno} {node[1]}"
                    warnings[f"{place}: {what} is not linear, so it means something else around another loss"] = None
    return tuple(warnings)


def _nonlinear_parts(inner: ast.AST) -> list[tuple[str, ast.expr]]:
    """(source, operand) for each operand on which a nonlinear expression depends."""
    if isinstance(inner, ast.Call) and last_name(inner.func) in _NONLINEAR:
        owner = [inner.func.value] if isinstance(inner.func, ast.Attribute) else []
        return [(ast.unparse(inner), part) for part in (*owner, *inner.args[:1])]
    if isinstance(inner, ast.BinOp) and isinstance(inner.op, ast.Pow | ast.Div):
        return [(ast.unparse(inner), inner.left if isinstance(inner.op, ast.Pow) else inner.right)]
    return []


def _is_replaced(found: Search, node: Node, expression: ast.expr, holding: set[str]) -> bool:
    """Whether an expression is computed from a replaced value and keeps its gradient."""
    inside = list(ast.walk(expression))
    if any(isinstance(n, ast.Attribute) and last(dotted(n) or n.attr) in _DETACHING for n in inside):
        return False
    for n in inside:
        if id(n) in found.ours or (isinstance(n, ast.Name) and n.id in holding):
            return True
        if isinstance(n, ast.Call) and found.project.resolve(node[0], n.func, node) in found.edited:
            return True
    return False
