"""Which functions of a host train and which evaluate."""

from __future__ import annotations

import ast
import re

from ..project import Node, Project

_EVALUATION = re.compile(
    r"eval(uat\w*)?|tests?|test(ing|er)|infer(ence)?|vis|visuali\w+|plot|demo|metrics?|val|valid(ate|ation|ator)?"
)
_TRAINING = re.compile(r"(pre|re)?train(er|ing)?|finetune")
_STEPS = {"training_step", "train_step", "compute_loss", "fit"}
"""Methods that a trainer of a library calls: Lightning, MMEngine, Keras, Hugging Face."""


def training(project: Project) -> set[Node]:
    """Functions (and files' top levels) that call `.backward()`, and steps that a library's trainer calls."""
    found = {node for node in calling(project, "backward", "manual_backward") if _last(node) != "backward"}
    for node in project.nodes:
        if _last(node) in _STEPS or (_last(node) == "loss" and project.owner(node)):
            found |= {node} if project.owner(node) else set()
    return {node for node in found if not by_name(node) and not is_evaluation_file(node[0])} or found


def evaluating(project: Project, loops: set[Node]) -> set[Node]:
    """Functions that evaluate by their name or file's name, under `no_grad`, or that put a model into that mode."""
    files = {loop[0] for loop in loops}
    switching = calling(project, "eval") - calling(project, "train")
    return {
        node
        for node, tree in project.nodes.items()
        if node not in loops
        and (
            by_name(node)
            or (is_evaluation_file(node[0]) and node[0] not in files)
            or is_quiet(getattr(tree, "decorator_list", []))
            or (node in switching and node[1] and _last(node) not in ("__init__", "forward"))
        )
    }


def by_name(node: Node) -> bool:
    """Whether a function, or the class it is in, is called like one that evaluates."""
    return any(is_evaluation(part) for part in node[1].split(".")) if node[1] else False


def is_evaluation(name: str) -> bool:
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)]
    return any(map(_EVALUATION.fullmatch, words)) and not any(map(_TRAINING.fullmatch, words))


def is_evaluation_file(file: str) -> bool:
    return is_evaluation(file.removesuffix(".py")) and not re.search(r"loss(es)?(_|\b)", file, re.IGNORECASE)


def quiet(project: Project, node: Node) -> set[int]:
    """What of a function's code (by id) records no gradient: it stands below `with torch.no_grad():`."""
    return {
        id(below)
        for inner in project.own[node]
        if isinstance(inner, ast.With) and is_quiet([item.context_expr for item in inner.items])
        for below in ast.walk(inner)
    }


def calling(project: Project, *names: str) -> set[Node]:
    """Functions that call a method of one of these names."""
    files = {file for file, text in project.text.items() if any(name.encode() in text for name in names)}
    return {
        node
        for node, own in project.own.items()
        if node[0] in files
        and any(isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute) and n.func.attr in names for n in own)
    }


def is_quiet(expressions: list[ast.expr]) -> bool:
    return any(word in ast.unparse(e) for e in expressions for word in ("no_grad", "inference_mode"))


def _last(node: Node) -> str:
    return node[1].rpartition(".")[2]
