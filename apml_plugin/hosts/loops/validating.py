"""Which functions of a host evaluate while gradients are recorded: they keep the host's loss by a decorator."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ...patching import decorator
from .evaluating import calling, is_quiet, quiet
from .finding import Finder
from .project import Node, Project, dotted
from .reading import last
from .sites import Site


def with_gradients(finder: Finder, evaluation: set[Node]) -> Iterator[Site]:
    """Evaluating functions that call a loss while gradients are recorded: there the decorator keeps the host's."""
    project, sites = finder.project, finder.edited | finder.using
    # Methods of the classes that hold a site: what a call on an unknown object may mean.
    owners = {owner for site in sites if (owner := project.owner(site))}
    methods = [m for owner in owners for m in project.members[owner] if not last(m[1]).startswith("__")]
    names = {last(m[1]) for m in methods if sites & project.reachable({m}, set()) or _holds(project, m, sites)}
    for node in sorted(evaluation & calling(project, "eval")):
        function, silent = project.nodes[node], quiet(project, node)
        if not isinstance(function, ast.FunctionDef) or is_quiet(function.decorator_list):
            continue
        for call in project.own[node]:
            if not isinstance(call, ast.Call) or id(call) in silent:
                continue
            target = project.resolve(node[0], call.func, node)
            known = target is not None and isinstance(project.nodes.get(target), ast.FunctionDef)
            by_method = isinstance(call.func, ast.Attribute) and call.func.attr in names and target is None
            leads = known and target and sites & project.reachable({target}, set())
            if by_method or leads or finder.replaces(node, call.func):
                what = "validates while gradients are recorded: keeps the host's loss"
                yield Site(node[0], call.lineno, node[1], what, decorator(node[0], node[1], "keeps_host_loss"))
                break


def _holds(project: Project, method: Node, sites: set[Node]) -> bool:
    """Whether a method calls a site through an attribute (`self.metric = self.chamfer`) of its class."""
    owner = project.owner(method)
    held = {
        dotted(target)
        for other in (project.members[owner] if owner else ())
        for n in project.own[other]
        if isinstance(n, ast.Assign) and project.resolve(other[0], n.value, other) in sites
        for target in n.targets
    }
    return bool(held & {dotted(n.func) for n in project.own[method] if isinstance(n, ast.Call)})
