"""Recipe in, plan out: apply, check, revert.

A host can carry several recipes at once (the builder's, and one per model), and some share a line, the reader of the
YAML; it goes in with the first of them and comes out with the last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import PatchError
from ..files.sources import python_files, read_source
from . import source
from .files import read, refuse_links, write
from .journal import recover
from .records import MARKER, Change, Line, Plan, Recipe

__all__ = ["check", "plan_apply", "plan_revert", "write"]


def check(root: Path, known: Iterable[Recipe]) -> tuple[str, ...]:
    """Names of the recipes in place. Raises PatchError for a half-patched or hand-modified host."""
    recover(root)
    known = tuple(known)
    there = {edit for file, edits in _by_file(known).items() for edit in source.present(read(root, file), file, edits)}
    placed = [recipe for recipe in known if there.issuperset(recipe.edits)]
    covered = {edit for recipe in placed for edit in recipe.edits}
    for recipe in known:
        here = [edit for edit in recipe.edits if edit in there - covered]
        missing = [edit for edit in recipe.edits if edit not in there]
        if here and missing:
            where = f"{here[0].file} is patched, but {missing[0].file} is not"
            if here[0].file == missing[0].file:
                where = f"{here[0].file} is patched only in part"
            raise PatchError(
                f"{root} is half patched: {where}. Run the patch with --revert, then patch again. Nothing was changed"
            )
    return tuple(recipe.name for recipe in placed)


def plan_apply(root: Path, recipes: Sequence[Recipe], known: Iterable[Recipe]) -> Plan:
    """The plan that puts `recipes` in place. `known` lists every recipe this host could carry.

    Files that are patched already are left as they are. Raises PatchError when the host is half patched.
    """
    known = tuple(known)
    refuse_links(root)
    check(root, known)
    every = _by_file((*known, *recipes))
    changes = []
    for file, edits in _by_file(recipes).items():
        before = read(root, file)
        there = source.present(before, file, every[file])
        if there.issuperset(edits):
            changes.append(Change(file, before, before, "already patched"))
        else:
            after = source.put(before, file, [edit for edit in every[file] if edit in there or edit in edits])
            changes.append(Change(file, before, after, "patched"))
    return Plan(root, tuple(changes))


def plan_revert(root: Path, recipes: Sequence[Recipe], known: Iterable[Recipe]) -> Plan:
    """The plan that takes `recipes` out again, every other byte kept; a half-patched host can be reverted too.

    Without a recipe of `known` that stays, that is every line which some version put into any Python file of the
    clone. Else a line stays, and the plan says so, while a recipe that stays still needs it.
    """
    recover(root)
    refuse_links(root)
    known = (*known, *recipes)
    every = _by_file(known)
    if all(recipe in recipes for recipe in known):
        with_mark = (file for file in python_files(root) if MARKER.encode() in _text(root, file))
        every = {**every, **{file: every.get(file, []) for file in with_mark}}
        leaving = every
    else:
        leaving = _by_file(recipes)
    out = {edit for recipe in recipes for edit in recipe.edits}
    data = {file: read(root, file) for file in every}
    texts = {file: source.texts(data[file], file) for file in every}
    placed = {edit for file, edits in every.items() for edit in source.found(data[file], file, edits)}
    # A recipe stays with a line of its own, which may have been moved or changed by hand in a file of its own.
    needs = [
        (edit.file, recipe)
        for recipe in known
        for edit in recipe.edits
        if edit not in out and (edit in placed or (edit.file not in leaving and texts[edit.file]))
    ]
    staying = {edit for _, recipe in needs for edit in recipe.edits}
    changes = []
    for file in leaving:
        before = data[file]
        stay = [edit for edit in every[file] if edit in staying and edit.line in texts[file]]
        same = texts[file] == Counter({word for edit in stay for word in (edit.line, edit.import_line)})
        after = before if same else source.put(before, file, stay, every[file])
        if after != before:
            changes.append(Change(file, before, after, "reverted"))
        elif stay:
            why = ", ".join(dict(needs))
            changes.append(Change(file, before, before, "left patched", f"{why} still needs it"))
        else:
            changes.append(Change(file, before, before, "not patched"))
    return Plan(root, tuple(changes))


def _text(root: Path, file: str) -> bytes:
    """A file's bytes; none of one that no patch could have edited either."""
    try:
        return read_source(root, file)
    except OSError:
        return b""


def _by_file(recipes: Iterable[Recipe]) -> dict[str, list[Line]]:
    """Every line once, in order, under its file."""
    files: dict[str, list[Line]] = {}
    for edit in dict.fromkeys(edit for recipe in recipes for edit in recipe.edits):
        files.setdefault(edit.file, []).append(edit)
    return files
