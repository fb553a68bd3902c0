"""What is broken, or will surprise, in a CSI2PointCloud codebase: found in its source, reported, never repaired."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from typing import Any

from ..pointr.stages import last_name
from ..pointr.structure import Definition
from .reading import imports, literal_arguments, parse
from .records import CsiHost, Script
from .structure import python_files

_LOCAL_PLACEHOLDER = "/path/to"


def findings(host: CsiHost) -> tuple[str, ...]:
    """One line each, with file and line: what does not work as the code stands."""
    found: list[str] = []
    for script in host.scripts:
        found += _dropped(host.root, script)
        found += _reader_limits(host.root, script)
        found += _windows(host.root, script.file)
        for file in python_files(host.root):
            if Path(file).parent == Path(script.file).parent and file != script.file:
                found += _other_script(host.root, file, script)
    return tuple(dict.fromkeys(found))


def _other_script(root: Path, file: str, script: Script) -> list[str]:
    """A script beside the training script that uses the same model: one that tests it, say."""
    tree = parse(root, file)
    imported = imports(root, file, tree) if tree else {}
    mine = {name for name, place in imported.items() if _same(place, script.model_class)}
    if tree is None or not mine:
        return []
    found = [*_packages(root, file, tree), *_windows(root, file)]
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name, where = last_name(call.func), f"{file}, line {call.lineno}"
        if name in mine:
            found += _other_size(where, script, literal_arguments(call))
        elif _same(imported.get(name), script.make_dataset):
            found += _unknown_words(root, where, call, script.make_dataset)
        elif ast.unparse(call.func) == "torch.load" and all(word.arg != "weights_only" for word in call.keywords):
            found.append(
                f"{where}: torch.load refuses the checkpoints that {script.file} saves during training since PyTorch "
                "2.6: their 'loss' is a NumPy scalar. `apml checkpoint convert` writes one that loads"
            )
    return found + _placeholder(file, tree)


def _other_size(where: str, script: Script, given: dict[str, Any]) -> list[str]:
    differ = [key for key in given if key in script.model and given[key] != script.model[key]]
    if not differ:
        return []
    here = ", ".join(f"{key}={given[key]!r}" for key in differ)
    there = ", ".join(f"{key}={script.model[key]!r}" for key in differ)
    return [f"{where}: builds the network with {here}, {script.file} with {there}: loading its weights fails"]


def _unknown_words(root: Path, where: str, call: ast.Call, place: Definition | None) -> list[str]:
    function = _function(root, place)
    if function is None or function.args.kwarg:
        return []
    known = {argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)}
    unknown = [word.arg for word in call.keywords if word.arg and word.arg not in known]
    return [f"{where}: passes {name}= to {place}, which takes no such argument: TypeError" for name in unknown]


def _dropped(root: Path, script: Script) -> list[str]:
    """Arguments of make_dataset that it never hands on, or not to every dataset it makes."""
    function = _function(root, script.make_dataset)
    if function is None:
        return []
    made = [
        call
        for call in ast.walk(function)
        if isinstance(call, ast.Call) and last_name(call.func).lower().endswith("dataset")
    ]
    found = []
    for argument in function.args.args[2:]:
        count = sum(any(_reads(word.value, argument.arg) for word in c.keywords) for c in made)
        what = f"{script.make_dataset}, line {function.lineno}: takes {argument.arg}"
        if not any(_reads(node, argument.arg) for node in function.body):
            found.append(f"{what} and drops it: the reader's own default is used")
        elif 0 < count < len(made):
            found.append(f"{what} and hands it to {count} of its {len(made)} datasets only")
    return found


def _reader_limits(root: Path, script: Script) -> list[str]:
    if not script.make_dataset:
        return []
    tree = parse(root, script.make_dataset.file)
    text = ast.unparse(tree) if tree else ""
    if "random.choice" not in text or "random.normal" not in text:
        return []
    return [
        f"{script.make_dataset.file}: clouds with too few points are filled with invented ones, those with too many "
        "thinned at random, anew at each reading and by no seed: validation numbers differ a little from run to run"
    ]


def _windows(root: Path, file: str) -> list[str]:
    tree = parse(root, file)
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "plt.show":
            return [f"{file}, line {node.lineno}: opens windows while it runs and waits for each: set MPLBACKEND=Agg"]
    return []


def _packages(root: Path, file: str, tree: ast.Module) -> list[str]:
    """Packages that a script imports on its own account and that are not installed here."""
    found = []
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names = [node.module]
        for name in {n.partition(".")[0] for n in names}:
            if name in sys.stdlib_module_names or (root / name).exists() or _installed(name):
                continue
            found.append(f"{file}, line {node.lineno}: imports {name}, which is not installed here")  # type: ignore[attr-defined]
    return found


def _placeholder(file: str, tree: ast.Module) -> list[str]:
    return [
        f"{file}, line {node.lineno}: the dataset's path is still a placeholder, {node.value!r}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith(_LOCAL_PLACEHOLDER)
    ]


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _function(root: Path, place: Definition | None) -> ast.FunctionDef | None:
    tree = parse(root, place.file) if place else None
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)] if tree else []
    return next((node for node in functions if place and node.name == place.name), None)


def _reads(node: ast.AST, name: str) -> bool:
    return any(isinstance(inner, ast.Name) and inner.id == name for inner in ast.walk(node))


def _same(one: Definition | None, other: Definition | None) -> bool:
    return one is not None and other is not None and (one.file, one.name) == (other.file, other.name)
