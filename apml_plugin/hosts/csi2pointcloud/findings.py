"""What is broken, or will surprise, in a CSI2PointCloud codebase: found in its source, reported, never repaired."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from typing import Any

from ..project import Definition, Project, inside, last_name
from .reading import imported, literal_arguments
from .records import CsiHost, Script

_LOCAL_PLACEHOLDER = "/path/to"


def findings(host: CsiHost) -> tuple[str, ...]:
    """One line each, with file and line: what does not work as the code stands."""
    found: list[str] = []
    for script in host.scripts:
        found += _dropped(host.project, script)
        found += _reader_limits(host.project, script)
        found += _windows(host.project, script.file)
        for file in host.project.trees:
            if Path(file).parent == Path(script.file).parent and file != script.file:
                found += _other_script(host.project, file, script)
    return tuple(dict.fromkeys(found))


def _other_script(project: Project, file: str, script: Script) -> list[str]:
    """A script beside the training script that uses the same model: one that tests it, say."""
    tree, model = project.trees[file], script.model_class
    if model is None or (model.file, model.name) not in project.bound(file).values():
        return []
    found = [*_packages(project, file), *_windows(project, file)]
    for call in inside(tree, ast.Call):
        made, where = imported(project, file, call), f"{file}, line {call.lineno}"
        if made == model:
            found += _other_size(where, script, literal_arguments(call))
        elif made and made == script.make_dataset:
            found += _unknown_words(project, where, call, made)
        elif ast.unparse(call.func) == "torch.load" and all(word.arg != "weights_only" for word in call.keywords):
            found.append(
                f"{where}: torch.load refuses the checkpoints that {script.file} saves during training since PyTorch "
                "2.6: their 'loss' is a NumPy scalar. `apml checkpoint convert` writes one that loads"
            )
    for node in inside(tree, ast.Constant):
        if isinstance(node.value, str) and node.value.startswith(_LOCAL_PLACEHOLDER):
            found.append(f"{file}, line {node.lineno}: the dataset's path is still a placeholder, {node.value!r}")
    return found


def _other_size(where: str, script: Script, given: dict[str, Any]) -> list[str]:
    differ = [key for key in given if key in script.model and given[key] != script.model[key]]
    if not differ:
        return []
    here = ", ".join(f"{key}={given[key]!r}" for key in differ)
    there = ", ".join(f"{key}={script.model[key]!r}" for key in differ)
    return [f"{where}: builds the network with {here}, {script.file} with {there}: loading its weights fails"]


def _unknown_words(project: Project, where: str, call: ast.Call, place: Definition) -> list[str]:
    function = project.nodes[place.file, place.name]
    if not isinstance(function, ast.FunctionDef) or function.args.kwarg:
        return []
    known = {argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)}
    unknown = [word.arg for word in call.keywords if word.arg and word.arg not in known]
    return [f"{where}: passes {name}= to {place}, which takes no such argument: TypeError" for name in unknown]


def _dropped(project: Project, script: Script) -> list[str]:
    """Arguments of make_dataset that it never hands on, or not to every dataset it makes."""
    place = script.make_dataset
    function = project.nodes[place.file, place.name] if place else None
    if not isinstance(function, ast.FunctionDef):
        return []
    made = [call for call in inside(function, ast.Call) if last_name(call.func).lower().endswith("dataset")]
    found = []
    for argument in function.args.args[2:]:
        count = sum(any(_reads(word.value, argument.arg) for word in call.keywords) for call in made)
        what = f"{place}, line {function.lineno}: takes {argument.arg}"
        if not any(_reads(node, argument.arg) for node in function.body):
            found.append(f"{what} and drops it: the reader's own default is used")
        elif 0 < count < len(made):
            found.append(f"{what} and hands it to {count} of its {len(made)} datasets only")
    return found


def _reader_limits(project: Project, script: Script) -> list[str]:
    text = project.text[script.make_dataset.file] if script.make_dataset else b""
    if script.make_dataset is None or b"random.choice" not in text or b"random.normal" not in text:
        return []
    return [
        f"{script.make_dataset.file}: clouds with too few points are filled with invented ones, those with too many "
        "thinned at random, anew at each reading and by no seed: validation numbers differ a little from run to run"
    ]


def _windows(project: Project, file: str) -> list[str]:
    for call in inside(project.trees[file], ast.Call):
        if ast.unparse(call.func) == "plt.show":
            return [f"{file}, line {call.lineno}: opens windows while it runs and waits for each: set MPLBACKEND=Agg"]
    return []


def _packages(project: Project, file: str) -> list[str]:
    """Packages that a script imports on its own account and that are not installed here."""
    found = []
    for node in ast.walk(project.trees[file]):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names = [node.module]
        for name in {n.partition(".")[0] for n in names}:
            if name not in sys.stdlib_module_names and not (project.root / name).exists() and not _installed(name):
                found.append(f"{file}, line {node.lineno}: imports {name}, which is not installed here")  # type: ignore[attr-defined]
    return found


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _reads(node: ast.AST, name: str) -> bool:
    return any(inner.id == name for inner in inside(node, ast.Name))
