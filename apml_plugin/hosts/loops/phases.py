"""Which functions of a host train and which evaluate."""

from __future__ import annotations

import ast
import re

from ..project import Node, Project, last

_EVALUATION = re.compile(
    r"eval(uat\w*)?|tests?|test(ing|er)|infer(ence)?|vis|visuali\w+|plot|demo|metrics?|val|valid(ate|ation|ator)?"
)
_TRAINING = re.compile(r"(pre|re)?train(er|ing)?|finetune")
_STEPS = {"training_step", "train_step", "compute_loss", "fit"}
"""Methods that the trainer of a library calls: Lightning, MMEngine, Keras, Hugging Face."""


def training(project: Project) -> set[Node]:
    """The functions and top levels of files that call `.backward()`, and the steps that a library's trainer calls."""
    found = {node for node in calling(project, "backward", "manual_backward") if last(node[1]) != "backward"}
    for node in project.nodes:
        if last(node[1]) in _STEPS or (last(node[1]) == "loss" and project.owner(node)):
            found |= {node} if project.owner(node) else set()
    return {node for node in found if not by_name(node) and not is_evaluation_file(node[0])} or found


def evaluating(project: Project, loops: set[Node]) -> set[Node]:
    """The functions that evaluate: by their or their file's name, under `no_grad`, or because they call `.eval()`.

    One that calls `.eval()` and leads to a training loop does not: a loop may freeze a teacher.
    """
    files = {loop[0] for loop in loops}
    switching = {
        node
        for node in calling(project, "eval") - calling(project, "train")
        if not project.reachable({node}, set(), by_name=True) & loops
    }
    return {
        node
        for node, tree in project.nodes.items()
        if node not in loops
        and (
            by_name(node)
            or (is_evaluation_file(node[0]) and node[0] not in files)
            or is_quiet(getattr(tree, "decorator_list", []))
            or (node in switching and node[1] and last(node[1]) not in ("__init__", "forward"))
        )
    }


def by_name(node: Node) -> bool:
    """Whether the name of a function, or of its class, says that it evaluates."""
    return any(is_evaluation(part) for part in node[1].split(".")) if node[1] else False


def is_evaluation(name: str) -> bool:
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)]
    return any(map(_EVALUATION.fullmatch, words)) and not any(map(_TRAINING.fullmatch, words))


def is_evaluation_file(file: str) -> bool:
    return is_evaluation(file.removesuffix(".py")) and not re.search(r"loss(es)?(_|\b)", file, re.IGNORECASE)


def quiet(project: Project, node: Node) -> set[int]:
    """The ids of the code of a function that is under `with torch.no_grad():`."""
    return {
        id(below)
        for inner in project.code[node]
        if isinstance(inner, ast.With) and is_quiet([item.context_expr for item in inner.items])
        for below in ast.walk(inner)
    }


def calling(project: Project, *names: str) -> set[Node]:
    """The functions that call a method with one of these names."""
    files = {file for file, text in project.text.items() if any(name.encode() in text for name in names)}
    return {
        node
        for node, own in project.code.items()
        if node[0] in files
        and any(isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute) and n.func.attr in names for n in own)
    }


def is_quiet(expressions: list[ast.expr]) -> bool:
    return any(word in ast.unparse(e) for e in expressions for word in ("no_grad", "inference_mode"))
