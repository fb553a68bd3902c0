"""Which functions of a host evaluate while gradients are recorded: they keep the host's loss by a decorator."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ...patching import decorator
from ..project import Node
from .evaluating import calling, is_quiet, quiet
from .finding import Finder
from .reading import parameters
from .sites import Site


def with_gradients(finder: Finder, evaluation: set[Node]) -> Iterator[Site]:
    """Evaluating functions that call a loss while gradients are recorded: there the decorator keeps the host's."""
    project, sites = finder.project, finder.edited | finder.using
    for node in sorted(evaluation & calling(project, "eval")):
        function, silent = project.nodes[node], quiet(project, node)
        if not isinstance(function, ast.FunctionDef) or is_quiet(function.decorator_list):
            continue
        for call in project.own[node]:
            if not isinstance(call, ast.Call) or id(call) in silent:
                continue
            target = project.resolve(node[0], call.func, node)
            called = {target} if target and isinstance(project.nodes.get(target), ast.FunctionDef) else set()
            if target is None and isinstance(call.func, ast.Attribute):
                # Of an object that nothing is known of: any class may have such a method, its constructor a loss.
                methods = project.methods.get(call.func.attr, ())
                inits = {(m[0], m[1].rpartition(".")[0] + ".__init__") for m in methods}
                called = {*methods, *inits & project.nodes.keys()}
            # A criterion that was handed in, by its looks: called with two things.
            given = isinstance(call.func, ast.Name) and call.func.id in parameters(function) and len(call.args) > 1
            if given or sites & project.reachable(called, set()) or finder.replaces(node, call.func):
                what = "validates while gradients are recorded: keeps the host's loss"
                yield Site(node[0], call.lineno, node[1], what, decorator(node[0], node[1], "keeps_host_loss"))
                break
