"""Recognising a CSI2PointCloud codebase by what its training script does, without importing any of it.

Such a script loads a YAML in a function, makes datasets from it, builds a loss with weights for Chamfer and for a
regulariser from a class of the project, and hands that loss to a function that steps through the batches. The
names of variables, functions, files and folders are read from the code, never assumed.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import HostError
from ..project import Definition, Project, dotted, inside, last_name

WEIGHTS = ("chamfer_weight", "regularization_weight")
_FOLDERS = 2


@dataclass(frozen=True)
class TrainStep:
    """The function that trains for an epoch. loss, epoch: its parameters; gt: the name of the ground truth in it.

    epoch and gt are empty where there is none.
    """

    definition: Definition
    loss: str
    gt: str
    epoch: str


@dataclass(frozen=True)
class Script:
    """One training script and the names in its main function. A name that it does not have is empty.

    yaml_path: the path of the YAML. config: the value read from it. root: the dataset's folder. epochs: their number.
    loss: the loss object. lines: the line of the last assignment to each of these. model, dataset, loader: the literal
    keyword arguments of the network, of make_dataset, and of the validation loader. loader_key: the key of the config
    whose value is passed with the last ones.
    """

    file: str
    main: Definition
    step: TrainStep
    config: str
    loss: str
    yaml_path: str
    root: str
    epochs: str
    lines: dict[str, int]
    loss_class: Definition
    model_class: Definition | None
    make_dataset: Definition | None
    make_loader: Definition | None
    model: dict[str, Any]
    dataset: dict[str, Any]
    loader: dict[str, Any]
    loader_key: str


@dataclass(frozen=True)
class CsiHost:
    """A recognised codebase: its training scripts."""

    root: Path
    scripts: tuple[Script, ...]
    project: Project = field(compare=False, repr=False)


def recognise(project: Project) -> CsiHost:
    """Recognise such a codebase. Raises HostError saying what was looked for, and where."""
    found, reasons = [], [text for file, text in project.broken.items() if file.count("/") <= _FOLDERS]
    files = [file for file in project.trees if file.count("/") <= _FOLDERS]
    for file in files:
        if b"yaml" in project.text[file] and b".backward(" in project.text[file]:
            script = _read_script(project, file)
            if isinstance(script, Script):
                found.append(script)
            else:
                reasons.append(f"{file} {script}")
    if not found:
        why = f". {'; '.join(reasons)}" if reasons else ""
        raise HostError(
            f"{project.root} is not a CSI2PointCloud codebase this plugin knows. Searched {len(files)} Python "
            "files for a training script: a function that loads a YAML, builds a loss from a class of the project with "
            f"{' and '.join(WEIGHTS)}, and passes it to a function of the script that calls .backward(){why}"
        )
    return CsiHost(project.root, tuple(found), project)


def _read_script(project: Project, file: str) -> Script | str:
    """The training script in a file, or why it is not one."""
    functions = {node.name: node for node in project.trees[file].body if isinstance(node, ast.FunctionDef)}
    reason = ""
    for main in functions.values():
        given = assignments(main)
        config = next((name for name, value in given if _loads_yaml(value)), "")
        for loss, call in given if config else ():
            made = imported(project, file, call)
            if made is None or not _is_loss_class(project, made):
                continue
            if step := _train_step(file, main, loss, functions):
                return _script(project, file, main, config, loss, made, step)
            reason = f"builds {made.name} but passes it to no function of its own that calls .backward()"
    return reason or "loads a YAML and trains, but its loss comes from no class with these two weights"


def _script(
    project: Project, file: str, main: ast.FunctionDef, config: str, loss: str, loss_class: Definition, step: TrainStep
) -> Script:
    calls, given = list(inside(main, ast.Call)), assignments(main)
    texts, counts = (
        {name for name, value in given if isinstance(value, ast.Constant) and type(value.value) is kind}
        for kind in (str, int)
    )
    opened = [dotted(c.args[0]) for c in calls if last_name(c.func) == "open" and c.args]
    datasets = [c for c in calls if len(c.args) > 1 and dotted(c.args[1]) == config and dotted(c.args[0]) in texts]
    ranges = [dotted(c.args[0]) for c in calls if last_name(c.func) == "range" and len(c.args) == 1]
    loader = _loader(project, file, main, datasets[0]) if datasets else None
    made = [c for c in calls if c.keywords and (cls := imported(project, file, c)) and _is_network(project, cls)]
    names = {
        "yaml_path": next((name for name in opened if name in texts), ""),
        "root": dotted(datasets[0].args[0]) if datasets else "",
        "epochs": next((name for name in ranges if name in counts), ""),
    }
    lines = {n: max((v.lineno for t, v in given if t == n), default=0) for n in (config, loss, *names.values()) if n}
    return Script(
        file,
        Definition(file, main.name, main.lineno),
        step,
        config,
        loss,
        **names,
        lines=lines,
        loss_class=loss_class,
        model_class=imported(project, file, made[0]) if made else None,
        make_dataset=imported(project, file, datasets[0]) if datasets else None,
        make_loader=imported(project, file, loader) if loader else None,
        model=literal_arguments(made[0]) if made else {},
        dataset=literal_arguments(datasets[0]) if datasets else {},
        loader=literal_arguments(loader) if loader else {},
        loader_key=_config_key(loader, config) if loader else "",
    )


def _loader(project: Project, file: str, main: ast.FunctionDef, made: ast.Call) -> ast.Call | None:
    """The call that makes a loader of the second dataset, the one for validation."""
    target = next((n.targets[0] for n in inside(main, ast.Assign) if n.value is made), None)
    if not isinstance(target, ast.Tuple) or len(target.elts) != 2:
        return None
    of = dotted(target.elts[1])
    calls = (call for call in inside(main, ast.Call) if call.args and dotted(call.args[0]) == of)
    return next((call for call in calls if imported(project, file, call)), None)


def _config_key(call: ast.Call, config: str) -> str:
    """`k` of a call with `**config['k']`."""
    for word in call.keywords:
        value = word.value
        if word.arg is None and isinstance(value, ast.Subscript) and dotted(value.value) == config:
            return str(value.slice.value) if isinstance(value.slice, ast.Constant) else ""
    return ""


def _train_step(file: str, main: ast.FunctionDef, loss: str, functions: dict[str, ast.FunctionDef]) -> TrainStep | None:
    """The function of the script that `main` passes the loss to and that calls .backward()."""
    for call in inside(main, ast.Call):
        function = functions.get(dotted(call.func))
        if function is None or not any(last_name(c.func) == "backward" for c in inside(function, ast.Call)):
            continue
        parameters = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
        taken = {word.arg for word in call.keywords if dotted(word.value) == loss and word.arg}
        taken |= {name for name, value in zip(parameters, call.args, strict=False) if dotted(value) == loss}
        if len(taken) != 1:
            continue
        (parameter,) = taken
        used = [dotted(c.args[1]) for c in inside(function, ast.Call)
                if dotted(c.func) == parameter and len(c.args) > 1]  # fmt: skip
        gt = used[0] if used and any(name == used[0] for name, _ in assignments(function)) else ""
        epoch = "epoch" if "epoch" in [*parameters, *(a.arg for a in function.args.kwonlyargs)] else ""
        return TrainStep(Definition(file, function.name, function.lineno), parameter, gt, epoch)
    return None


def imported(project: Project, file: str, made: ast.AST) -> Definition | None:
    """The class or function of another file of the project that a call is of."""
    node = project.resolve(file, made.func) if isinstance(made, ast.Call) else None
    return Definition(*node, project.nodes[node].lineno) if node in project.nodes and node[0] != file else None  # type: ignore


def literal_arguments(call: ast.Call) -> dict[str, Any]:
    """Keyword arguments whose values are written out."""
    return {word.arg: word.value.value for word in call.keywords if word.arg and isinstance(word.value, ast.Constant)}


def assignments(function: ast.FunctionDef) -> list[tuple[str, ast.expr]]:
    """Plain `name = value` statements, in the order of the source."""
    found = [node for node in inside(function, ast.Assign) if len(node.targets) == 1]
    return [(node.targets[0].id, node.value) for node in sorted(found, key=lambda node: node.lineno)
            if isinstance(node.targets[0], ast.Name)]  # fmt: skip


def _is_network(project: Project, place: Definition) -> bool:
    """A class with a forward that is not such a loss."""
    return (place.file, f"{place.name}.forward") in project.nodes and not _is_loss_class(project, place)


def _is_loss_class(project: Project, place: Definition) -> bool:
    """A class whose constructor keeps both weights and whose forward takes two clouds and, possibly, features."""
    init, forward = (project.nodes.get((place.file, f"{place.name}.{name}")) for name in ("__init__", "forward"))
    if not isinstance(init, ast.FunctionDef) or not isinstance(forward, ast.FunctionDef):
        return False
    kept = {node.attr for node in inside(init, ast.Attribute)}
    return set(WEIGHTS) <= kept and len(forward.args.args) - len(forward.args.defaults) == 3


def _loads_yaml(value: ast.expr) -> bool:
    return (
        dotted(value.func) in ("yaml.load", "yaml.safe_load", "yaml.full_load")
        if isinstance(value, ast.Call)
        else False
    )
