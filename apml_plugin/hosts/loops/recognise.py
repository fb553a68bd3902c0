"""Telling a host without a model registry by its structure: a training loop, and the Chamfer it leads to."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Set
from dataclasses import dataclass
from pathlib import Path

from ...errors import HostError
from ...patching import Line, Recipe
from ..project import Node, Project, dotted
from . import chains, evaluating
from .arithmetic import warnings
from .finding import Finder
from .reading import Chamfers
from .sites import BY_HAND, Kept, Refused, Site
from .validating import with_gradients


@dataclass(frozen=True)
class Fork:
    """A recognised codebase. loops: where it trains. sites: what becomes ours. chains: names let through.

    warnings: what the host makes of a replaced value that changes its meaning. looked: how many files there are.
    """

    root: Path
    loops: tuple[str, ...]
    sites: tuple[Site, ...]
    chains: tuple[Site, ...] = ()
    validators: tuple[Site, ...] = ()
    kept: tuple[Kept, ...] = ()
    refused: tuple[Refused, ...] = ()
    broken: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    looked: int = 0

    @property
    def edits(self) -> tuple[Line, ...]:
        return tuple(dict.fromkeys(site.edit for site in (*self.sites, *self.chains, *self.validators)))


def recipe(fork: Fork) -> Recipe:
    """All edits of a host: they only make sense together."""
    return Recipe("training losses", fork.edits)


def recognise(project: Project) -> Fork:
    """Recognise a codebase that trains in a loop of its own.

    Raises HostError if nothing in it trains with a Chamfer distance, or none that can be replaced safely; it says
    what was found where, and which two lines do it by hand.
    """
    root, fork = project.root, read(project)
    if fork.sites:
        return fork
    broken = "".join(f"{text}, so it was not looked at. " for text in fork.broken)
    looked = f"Looked through {fork.looked} Python files"
    if fork.refused:
        told = "\n  ".join(str(refused) for refused in fork.refused)
        raise HostError(f"{broken}{root} trains with a Chamfer that cannot be replaced safely:\n  {told}")
    if not fork.loops:
        raise HostError(f"{broken}{root} has no training loop: {looked} for a call of .backward()")
    raise HostError(
        f"{broken}{root} trains ({', '.join(fork.loops[:4])}), but with no Chamfer distance this plugin can tell: "
        f"{looked} for a function of two clouds that averages both directions of a Chamfer, and for an object or an "
        "imported function that does. By hand, behind the line that makes the loss:\n    " + "\n    ".join(BY_HAND)
    )


def read(project: Project, without: Set[Node] = frozenset()) -> Fork:
    """What trains in a project, and with which Chamfer.

    without: definitions of a host of another kind (its builder, its models): loops that lead to one of them, and
    what these use, are not looked at.
    """
    theirs = project.reachable(set(without), set()) | without if without else set()
    loops = evaluating.training(project)
    evaluation = evaluating.evaluating(project, loops)
    if without:
        loops = {loop for loop in loops if not project.reachable({loop}, evaluation) & without}
    roots = set(loops)
    if not loops and not without:
        roots = set(project.nodes) - evaluation
    elif loops and any(_imports_by_name(project, file) for file in project.trees):
        roots |= {owner for node in project.nodes if node[1].endswith(".forward") and (owner := project.owner(node))}
    finder = Finder(Chamfers(project), project.reachable(roots - theirs, evaluation | theirs, by_name=True), loops)
    if not finder.found and loops and not without:
        # What trains may be reached in a way that no name tells: by a registry, a config, a callback.
        finder = Finder(finder.chamfers, _near(project, loops) - evaluation, loops)
    if not finder.found and loops and not without:
        # A factory, a config or a subclass makes the objects: what counts then is the class.
        finder = Finder(finder.chamfers, _near(project, loops) - evaluation, loops, everywhere=True)
    return _fork(project, finder, loops, evaluation)


def _near(project: Project, loops: set[Node]) -> set[Node]:
    """The definitions in files that imports tie to the loops' files, all of them where something imports by name."""
    if any(_imports_by_name(project, file) for file in project.trees):
        return set(project.nodes)
    imports = {file: {target[0] for target in project.bound(file).values()} - {""} for file in project.trees}
    files, grown = {loop[0] for loop in loops}, True
    while grown:
        tied = {f for f in imports if imports[f] & files} | {t for f in files for t in imports.get(f, ())}
        grown = bool(tied - files)
        files |= tied
    return {node for node in project.nodes if node[0] in files}


def sites_for(project: Project, nodes: Iterable[Node]) -> Fork:
    """What definitions, such as a registry's model classes, train with, but for losses that hang on `self`."""
    loops: set[Node] = set()
    evaluation = evaluating.evaluating(project, evaluating.training(project))
    reached = project.reachable(set(nodes), evaluation)
    return _fork(project, Finder(Chamfers(project), reached, loops, attributes=False), loops, evaluation)


def _fork(project: Project, finder: Finder, loops: set[Node], evaluation: set[Node]) -> Fork:
    sites = tuple(item for item in finder.found if isinstance(item, Site))
    leading = {loop for loop in loops if finder.edited & project.reachable({loop}, evaluation)}
    by_name = {loop for loop in loops if _imports_by_name(project, loop[0])}
    shown = (leading or by_name or loops) if finder.edited else loops
    return Fork(
        project.root,
        tuple(f"{at[0]}:{getattr(project.nodes[at], 'lineno', 1)} {at[1]}".rstrip() for at in sorted(shown)),
        sites,
        tuple(chains.find(finder)) if sites else (),
        tuple(with_gradients(finder, evaluation)),
        tuple(item for item in finder.found if isinstance(item, Kept)),
        tuple(item for item in finder.found if isinstance(item, Refused)),
        tuple(project.broken.values()),
        warnings(finder),
        project.count,
    )


def _imports_by_name(project: Project, file: str) -> bool:
    """Whether models are made by a name known only at run time: any network may be what is trained."""
    text = project.text[file]
    return (b"import" in text or b"registry" in text.lower()) and any(
        isinstance(node, ast.Call) and dotted(node.func).endswith(("import_module", "__import__", "Registry"))
        for at in project.definitions[file]
        for node in project.own[at]
    )
