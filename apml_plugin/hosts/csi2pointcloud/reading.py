"""Reading one training script: its syntax tree in, a Script out."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from ...errors import PatchError
from ...files import sources
from ...patching.source import bare
from ..pointr.stages import last_name
from ..pointr.structure import Definition
from .records import Script, TrainStep

WEIGHTS = ("chamfer_weight", "regularization_weight")


def parse(root: Path, file: str) -> ast.Module | None:
    """The tree of a file as it is without a patch; None if there is none or it is not valid Python."""
    try:
        return sources.parse(bare(sources.read_source(root, file)))
    except (OSError, SyntaxError, PatchError):
        return None


def read_script(root: Path, file: str) -> Script | str:
    """The training script in a file; else why it is none, where it nearly is one, or an empty string."""
    try:
        data = sources.read_source(root, file)
    except OSError:
        return ""
    if b"yaml" not in data or b".backward(" not in data:
        return ""
    tree = parse(root, file)
    if tree is None:
        return "is not valid Python"
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    imported = imports(root, file, tree)
    reason = ""
    for main in functions.values():
        config = _assigned(main, lambda value: _is_call(value, "load", "safe_load", "full_load") and _on_yaml(value))
        if not config:
            continue
        for loss, call in _calls_assigned(main):
            made = imported.get(last_name(call.func))
            if made is None or not _is_loss_class(root, made):
                continue
            step = _train_step(file, main, loss, functions)
            if step is None:
                reason = f"builds {made.name} but passes it to no function of its own that calls .backward()"
                continue
            return _script(root, file, main, config, loss, made, step, imported)
        reason = reason or "loads a YAML and trains, but its loss comes from no class with these two weights"
    return reason


def _script(
    root: Path,
    file: str,
    main: ast.FunctionDef,
    config: str,
    loss: str,
    loss_class: Definition,
    step: TrainStep,
    imported: dict[str, Definition],
) -> Script:
    calls = [node for node in ast.walk(main) if isinstance(node, ast.Call)]
    texts = {name for name, value in _assignments(main) if isinstance(value, ast.Constant) and _is(value, str)}
    counts = {name for name, value in _assignments(main) if isinstance(value, ast.Constant) and _is(value, int)}
    opened = [_name(c.args[0]) for c in calls if last_name(c.func) == "open" and c.args]
    datasets = [c for c in calls if len(c.args) > 1 and _name(c.args[1]) == config and _name(c.args[0]) in texts]
    ranges = [_name(c.args[0]) for c in calls if last_name(c.func) == "range" and len(c.args) == 1]
    model, model_call = _model(root, main, imported)
    loader = _loader(main, datasets[0], imported) if datasets else None
    names = {
        "yaml_path": next((name for name in opened if name in texts), ""),
        "root": _name(datasets[0].args[0]) if datasets else "",
        "epochs": next((name for name in ranges if name in counts), ""),
    }
    lines = {name: _last_line(main, name) for name in (config, loss, *names.values()) if name}
    return Script(
        file,
        Definition(file, main.name, main.lineno),
        step,
        config,
        loss,
        **names,
        lines=lines,
        loss_class=loss_class,
        model_class=model,
        make_dataset=imported.get(last_name(datasets[0].func)) if datasets else None,
        make_loader=imported.get(last_name(loader.func)) if loader else None,
        model=literal_arguments(model_call) if model_call else {},
        dataset=literal_arguments(datasets[0]) if datasets else {},
        loader=literal_arguments(loader) if loader else {},
        loader_key=_config_key(loader, config) if loader else "",
    )


def _loader(main: ast.FunctionDef, made: ast.Call, imported: dict[str, Definition]) -> ast.Call | None:
    """The call that makes a loader of the second dataset, the one for validation."""
    pairs = [n for n in ast.walk(main) if isinstance(n, ast.Assign) and n.value is made]
    target = pairs[0].targets[0] if pairs else None
    if not isinstance(target, ast.Tuple) or len(target.elts) != 2:
        return None
    for call in (node for node in ast.walk(main) if isinstance(node, ast.Call)):
        if call.args and _name(call.args[0]) == _name(target.elts[1]) and last_name(call.func) in imported:
            return call
    return None


def _config_key(call: ast.Call, config: str) -> str:
    """`k` of a call with `**config['k']`."""
    for word in call.keywords:
        value = word.value
        if word.arg is None and isinstance(value, ast.Subscript) and _name(value.value) == config:
            return str(value.slice.value) if isinstance(value.slice, ast.Constant) else ""
    return ""


def _train_step(file: str, main: ast.FunctionDef, loss: str, functions: dict[str, ast.FunctionDef]) -> TrainStep | None:
    """The function of the script that `main` passes the loss to and that calls .backward()."""
    for call in (node for node in ast.walk(main) if isinstance(node, ast.Call)):
        function = functions.get(last_name(call.func)) if isinstance(call.func, ast.Name) else None
        if function is None or not any(_is_call(node, "backward") for node in ast.walk(function)):
            continue
        parameters = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
        taken = {word.arg for word in call.keywords if _name(word.value) == loss and word.arg}
        taken |= {parameters[i] for i, value in enumerate(call.args[: len(parameters)]) if _name(value) == loss}
        if len(taken) != 1:
            continue
        (parameter,) = taken
        inner = [c for c in ast.walk(function) if isinstance(c, ast.Call) and _name(c.func) == parameter]
        used = [_name(c.args[1]) for c in inner if len(c.args) > 1]
        gt = used[0] if used and any(name == used[0] for name, _ in _assignments(function)) else ""
        epoch = "epoch" if "epoch" in [*parameters, *(a.arg for a in function.args.kwonlyargs)] else ""
        return TrainStep(Definition(file, function.name, function.lineno), parameter, gt, epoch)
    return None


def _model(
    root: Path, main: ast.FunctionDef, imported: dict[str, Definition]
) -> tuple[Definition | None, ast.Call | None]:
    """The class of the project that `main` builds by keywords and that has a forward, and the call."""
    for call in (node for node in ast.walk(main) if isinstance(node, ast.Call)):
        made = imported.get(_name(call.func))
        if made and call.keywords and "forward" in _methods(root, made) and not _is_loss_class(root, made):
            return made, call
    return None, None


def imports(root: Path, file: str, tree: ast.Module) -> dict[str, Definition]:
    """Names that a script imports from modules of the project: each with where it is defined."""
    found = {}
    for node in tree.body:
        if not isinstance(node, ast.ImportFrom) or node.level or not node.module:
            continue
        inside = node.module.replace(".", "/") + ".py"
        places = [inside, (Path(file).parent / inside).as_posix()]
        place = next((p for p in places if (root / p).is_file()), None)
        for alias in node.names if place else ():
            found[alias.asname or alias.name] = Definition(str(place), alias.name, node.lineno)
    return found


def class_in(root: Path, place: Definition) -> ast.ClassDef | None:
    tree = parse(root, place.file)
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)] if tree else []
    return next((node for node in classes if node.name == place.name), None)


def literal_arguments(call: ast.Call) -> dict[str, Any]:
    """Keyword arguments whose values are written out."""
    return {word.arg: word.value.value for word in call.keywords if word.arg and isinstance(word.value, ast.Constant)}


def _methods(root: Path, place: Definition) -> dict[str, ast.FunctionDef]:
    node = class_in(root, place)
    return {inner.name: inner for inner in node.body if isinstance(inner, ast.FunctionDef)} if node else {}


def _is_loss_class(root: Path, place: Definition) -> bool:
    """A class whose constructor keeps both weights and whose forward takes two clouds and, possibly, features."""
    methods = _methods(root, place)
    if "__init__" not in methods or "forward" not in methods:
        return False
    kept = {node.attr for node in ast.walk(methods["__init__"]) if isinstance(node, ast.Attribute)}
    taken = methods["forward"].args
    return set(WEIGHTS) <= kept and len(taken.args) - len(taken.defaults) == 3


def _assignments(function: ast.FunctionDef) -> list[tuple[str, ast.expr]]:
    """Plain `name = value` statements, in the order of the source."""
    found = [
        node
        for node in ast.walk(function)
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)
    ]
    return [(_name(node.targets[0]), node.value) for node in sorted(found, key=lambda node: node.lineno)]


def _last_line(function: ast.FunctionDef, name: str) -> int:
    return max((value.lineno for target, value in _assignments(function) if target == name), default=0)


def _assigned(function: ast.FunctionDef, test: Any) -> str:
    return next((name for name, value in _assignments(function) if test(value)), "")


def _calls_assigned(function: ast.FunctionDef) -> list[tuple[str, ast.Call]]:
    return [(name, value) for name, value in _assignments(function) if isinstance(value, ast.Call)]


def _is_call(node: ast.AST, *names: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in names


def _on_yaml(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and last_name(node.func.value) == "yaml"


def _is(node: ast.Constant, kind: type) -> bool:
    return isinstance(node.value, kind) and not isinstance(node.value, bool)


def _name(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else ""
