"""`python -m apml_plugin.launch.in_memory SCRIPT ARGS`: runs a training script as `apml patch` would leave it.

Import hooks do not see the script that Python runs first, nor the variables of a function. Where a host keeps loss,
paths and epochs in its script (CSI2PointCloud), the lines of its patch are put into the syntax tree instead; the file
on disk stays as it is, and tracebacks show its own line numbers.
"""

from __future__ import annotations

import ast
import os
import sys
import types
from collections.abc import Sequence
from pathlib import Path

from apml_plugin.errors import ApmlError


def command(words: Sequence[str]) -> list[str] | None:
    """The command that runs `words` (a script and its arguments) with its patch in memory; None if it has none.

    None, too, for a script that is patched already. Raises PatchError for one that is half patched.
    """
    edits = _edits(words[0]) if words else ()
    return [sys.executable, "-m", "apml_plugin.launch.in_memory", *words] if edits else None


def patched(data: bytes, edits: Sequence[object], file: str) -> ast.Module:
    """The tree of a file's bytes with the edits in it; every node keeps the line it has in the file."""
    from apml_plugin.patching import source

    after = source.insert(data, *edits)  # type: ignore[arg-type]
    inserted = source.marked(after, *edits).lines  # type: ignore[arg-type]
    tree = ast.parse(after, filename=file)
    for node in ast.walk(tree):
        for name in ("lineno", "end_lineno"):
            line = getattr(node, name, None)
            if line is not None:
                # An inserted line counts as the one above it.
                setattr(node, name, max(1, line - sum(number <= line for number in inserted)))
    return tree


def run(words: Sequence[str]) -> None:
    """Run `words[0]` as `__main__`, patched, with its own folder first on the path."""
    path = words[0]
    edits = _edits(path)
    data = Path(path).read_bytes()
    tree = patched(data, edits, path) if edits else ast.parse(data, filename=path)
    code = compile(tree, path, "exec", dont_inherit=True)
    sys.argv[:] = words
    sys.path[0] = os.path.dirname(os.path.realpath(path))
    main = types.ModuleType("__main__")
    main.__dict__.update(__file__=path, __builtins__=__builtins__, __cached__=None)
    sys.modules["__main__"] = main
    exec(code, main.__dict__)


def _edits(path: str) -> tuple:  # type: ignore[type-arg]
    """The edits of a training script that is not patched."""
    from apml_plugin.hosts.csi2pointcloud.recipes import recipe_for_script
    from apml_plugin.hosts.csi2pointcloud.structure import read_script
    from apml_plugin.patching import check

    real = Path(os.path.realpath(path))
    if real.suffix != ".py" or not real.is_file():
        return ()
    for root in (real.parent, *list(real.parents)[1:3]):
        try:
            script = read_script(root, real.relative_to(root).as_posix())
        except ApmlError:
            return ()
        if not isinstance(script, str):
            recipe = recipe_for_script(script)
            return () if check(root, [recipe]) else recipe.edits
    return ()


if __name__ == "__main__":
    run(sys.argv[1:])
