"""Which functions of a host train, which validate, and which of these record gradients all the same."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ...patching import Edit
from .project import Node, Project, own_code
from .sites import SOURCE, Site


def training(project: Project) -> set[Node]:
    """Functions (and files' top levels) that call `.backward()`; not the backward of an autograd function."""
    return {node for node in _candidates(project) if _calls(project, node, "backward")}


def validating(project: Project) -> set[Node]:
    """Functions that put a model into evaluation mode and train nothing."""
    return {
        node
        for node in _candidates(project)
        if node[1] and _calls(project, node, "eval") and not _calls(project, node, "backward")
    }


def with_gradients(project: Project, validators: set[Node], sites: set[Node]) -> Iterator[Site]:
    """Validating functions that call a loss outside of `torch.no_grad()`: there the decorator keeps the host's."""
    names = _names_of_losses(project, sites)
    for node in sorted(validators):
        function = project.nodes[node]
        if not isinstance(function, ast.FunctionDef) or _is_decorated(function):
            continue
        for call in _outside_no_grad(function):
            target = project.resolve(node[0], call.func, node)
            if target is not None and isinstance(project.nodes.get(target), ast.ClassDef):
                continue  # makes the object, measures nothing yet
            by_name = isinstance(call.func, ast.Attribute) and call.func.attr in names
            if by_name or (target is not None and sites & project.reachable({target}, set())):
                what = "validates while gradients are recorded: keeps the host's loss"
                edit = Edit(node[0], node[1], "keeps_host_loss", SOURCE)
                yield Site(node[0], call.lineno, node[1], what, edit)
                break


def _candidates(project: Project) -> Iterator[Node]:
    for node, tree in project.nodes.items():
        if not isinstance(tree, ast.ClassDef) and node[1].rpartition(".")[2] != "backward":
            yield node


def _calls(project: Project, node: Node, method: str) -> bool:
    return any(
        isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute) and n.func.attr == method
        for n in own_code(project.nodes[node])
    )


def _names_of_losses(project: Project, sites: set[Node]) -> set[str]:
    """Methods of classes with a site, by whose name a call on an unknown object is told."""
    owners = {project.owner(site) for site in sites} - {None}
    methods = [key for key in project.nodes if project.owner(key) in owners and not key[1].endswith("__")]
    reach = {key: project.reachable({key}, set()) for key in methods}
    # A method that calls through an attribute (`self.metric = self.chamfer`) is one of them, too.
    holds = {
        ast.unparse(target)
        for key in [key for key in project.nodes if project.owner(key) in owners]
        for statement in own_code(project.nodes[key])
        if isinstance(statement, ast.Assign) and project.resolve(key[0], statement.value, key) in sites
        for target in statement.targets
    }
    return {key[1].rpartition(".")[2] for key in methods if reach[key] & sites or _calls_any(project, key, holds)}


def _calls_any(project: Project, node: Node, names: set[str]) -> bool:
    return any(isinstance(n, ast.Call) and ast.unparse(n.func) in names for n in own_code(project.nodes[node]))


def _is_decorated(function: ast.FunctionDef) -> bool:
    return any("no_grad" in ast.unparse(d) or "inference_mode" in ast.unparse(d) for d in function.decorator_list)


def _outside_no_grad(tree: ast.AST) -> Iterator[ast.Call]:
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.With) and any(
            "no_grad" in ast.unparse(item.context_expr) or "inference_mode" in ast.unparse(item.context_expr)
            for item in child.items
        ):
            continue
        if isinstance(child, ast.Call):
            yield child
        yield from _outside_no_grad(child)
