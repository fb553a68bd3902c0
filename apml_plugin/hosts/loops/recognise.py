"""Telling a host without a model registry by its structure: a training loop, and the Chamfer it leads to."""

from __future__ import annotations

import ast
import os
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import HostError
from ...patching import Edit, Line, Recipe
from . import chains, functions, objects, validating
from .project import Node, Project
from .sites import Kept, Refused, Site


@dataclass(frozen=True)
class Fork:
    """A recognised codebase. loops: where it trains. sites: what becomes ours. chains: names let through."""

    root: Path
    loops: tuple[str, ...]
    sites: tuple[Site, ...]
    chains: tuple[Site, ...] = ()
    validators: tuple[Site, ...] = ()
    kept: tuple[Kept, ...] = ()
    refused: tuple[Refused, ...] = ()
    broken: tuple[str, ...] = field(default=())

    @property
    def edits(self) -> tuple[Edit | Line, ...]:
        return tuple(site.edit for site in (*self.sites, *self.chains, *self.validators))

    def __str__(self) -> str:
        return f"host with a training loop at {self.root} (trains in {', '.join(self.loops)})"


def recipe(fork: Fork) -> Recipe:
    """All edits of a host: they only make sense together."""
    return Recipe("training losses", fork.edits)


def recognise(path: str | os.PathLike[str]) -> Fork:
    """Recognise the codebase at `path`.

    Raises HostError if nothing in it trains with a Chamfer distance, or none that can be replaced safely; it says
    what was found where, and which two lines do it by hand.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise HostError(f"{root} is not a folder; give the root of the clone (the folder with its main.py)")
    root = root.resolve()
    project = Project(root)
    fork = _read(project)
    if fork.sites:
        return fork
    if fork.refused:
        told = "\n  ".join(str(refused) for refused in fork.refused)
        raise HostError(f"{_broken(fork.broken)}{root} trains with a Chamfer that cannot be replaced safely:\n  {told}")
    looked = f"Looked through {len(project.trees)} Python files"
    if not fork.loops:
        raise HostError(f"{_broken(fork.broken)}{root} has no training loop: {looked} for a call of .backward()")
    raise HostError(
        f"{_broken(fork.broken)}{root} trains ({', '.join(fork.loops[:4])}), but with no Chamfer distance this plugin "
        f"can tell: {looked} for a function of two clouds that averages both directions of a Chamfer object, and for "
        "such an object in a training function. By hand, behind the line that makes the loss:\n"
        "    from apml_plugin.hosts.training import training_value\n"
        "    loss = training_value(loss, pred, gt)"
    )


def _read(project: Project) -> Fork:
    loops = validating.training(project)
    validators = validating.validating(project)
    roots = set(loops)
    if _imports_by_name(project):
        roots |= {node for node in project.nodes if functions.is_forward(project, node)}
    reached = project.reachable(roots, validators)
    found: list[Site | Kept | Refused] = list(functions.find(project, reached, loops))
    taken = {(item.file, item.name) for item in found}
    found += objects.find(project, reached, loops, taken)
    found += objects.at_top_level(project, loops)
    found += [kept for kept in functions.in_networks(project, reached) if (kept.file, kept.name) not in taken]
    sites = tuple(item for item in found if isinstance(item, Site))
    places = {(site.file, site.name) for site in sites if isinstance(site.edit, Edit)}
    if places:
        leading = {loop for loop in loops if places & project.reachable({loop}, validators)}
        loops = leading or {loop for loop in loops if _imports_by_name(project, loop[0])} or loops
    return Fork(
        project.root,
        tuple(f"{file}: {name}" if name else file for file, name in sorted(loops)),
        sites,
        tuple(chains.find(project, reached, places)) if sites else (),
        tuple(validating.with_gradients(project, validators, places)),
        tuple(item for item in found if isinstance(item, Kept)),
        tuple(item for item in found if isinstance(item, Refused)),
        tuple(project.broken.values()),
    )


def _imports_by_name(project: Project, file: str = "") -> bool:
    """Whether models are imported by a name known only at run time: any network may be what is trained."""
    return any(
        isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__"))
        for tree in ([project.trees[file]] if file else project.trees.values())
        for node in ast.walk(tree)
    )


def _broken(broken: tuple[str, ...]) -> str:
    return "".join(f"{text}, so it was not looked at. " for text in broken)


def in_file(fork: Fork, file: str) -> tuple[Edit | Line, ...]:
    """The edits of one file, given relative to the root."""
    return tuple(edit for edit in fork.edits if edit.file == file)


__all__ = ["Fork", "Node", "in_file", "recipe", "recognise"]
