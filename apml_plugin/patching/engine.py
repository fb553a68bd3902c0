"""Recipe in, plan out: apply, check, revert.

A host can carry several recipes at once (the builder's, and one per model). They share one edit, the reader
of the YAML; it goes in with the first recipe and comes out with the last.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import PatchError
from . import source
from .files import read, refuse_links, write
from .journal import recover
from .records import Change, Edit, Line, Plan, Recipe

__all__ = ["check", "plan_apply", "plan_revert", "write"]


def check(root: Path, known: Iterable[Recipe]) -> tuple[str, ...]:
    """Names of the recipes in place. Raises PatchError for a half-patched or hand-modified host."""
    recover(root)
    known = tuple(known)
    there: set[Edit | Line] = set()
    for file, edits in _by_file(known).items():
        there |= source.present(read(root, file), edits)
    for recipe in known:
        own = [edit for edit in recipe.edits if not edit.shared]
        _all_or_none(root, [edit for edit in own if edit in there], [edit for edit in own if edit not in there])
    for edit in (edit for edit in _edits(known) if edit.shared):
        users = [own for recipe in known if edit in recipe.edits for own in recipe.edits if not own.shared]
        used = [own for own in users if own in there]
        if edit in there and not used:
            raise _half(root, edit.file, "the definition that builds the model")
        _all_or_none(root, used, [] if edit in there else [edit])
    return tuple(recipe.name for recipe in known if all(edit in there for edit in recipe.edits))


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
        there = source.present(before, every[file])
        missing = [edit for edit in edits if edit not in there]
        if missing:
            changes.append(Change(file, before, source.insert(before, *missing), "patched"))
        else:
            changes.append(Change(file, before, before, "already patched"))
    return Plan(root, tuple(changes))


def plan_revert(root: Path, recipes: Sequence[Recipe], known: Iterable[Recipe]) -> Plan:
    """The plan that takes `recipes` out again, every other byte kept; a half-patched host can be reverted too.

    A shared edit stays, and the plan says so, while another recipe of `known` still needs it.
    """
    recover(root)
    refuse_links(root)
    known = tuple(known)
    every = _by_file((*known, *recipes))
    found = {file: source.marked(read(root, file), *edits) for file, edits in every.items()}
    leaving = _edits(recipes)
    staying = [edit for edit in _edits(known) if edit not in leaving and not edit.shared]
    still = [edit for edit in staying if edit in found[edit.file].placed]
    for edit in staying:
        # Lines of a staying recipe that were moved or changed by hand: they may still need what is shared.
        alone = all(other.file != edit.file for other in leaving)
        if edit not in still and alone and found[edit.file].any:
            still.append(edit)
    changes = []
    for file, edits in _by_file(recipes).items():
        before = read(root, file)
        kept = [edit for edit in edits if edit.shared and _needed(edit, still, known)]
        out = [edit for edit in edits if edit not in kept]
        after = source.remove(before, *out, staying=[e for e in every[file] if e not in out]) if out else before
        if after != before:
            changes.append(Change(file, before, after, "reverted"))
        elif kept and found[file].any:
            why = ", ".join(dict.fromkeys(edit.file for edit in still))
            changes.append(Change(file, before, before, "left patched", f"{why} still needs it"))
        else:
            changes.append(Change(file, before, before, "not patched"))
    return Plan(root, tuple(changes))


def _needed(shared: Edit | Line, still: Sequence[Edit | Line], known: Iterable[Recipe]) -> bool:
    """Whether a recipe with this shared edit keeps an edit of its own."""
    return any(shared in recipe.edits and own in still for recipe in known for own in recipe.edits)


def _all_or_none(root: Path, there: Sequence[Edit | Line], missing: Sequence[Edit | Line]) -> None:
    if there and missing:
        raise _half(root, there[0].file, missing[0].file)


def _half(root: Path, there: str, missing: str) -> PatchError:
    where = f"{there} is patched, but {missing} is not" if there != missing else f"{there} is patched only in part"
    return PatchError(
        f"{root} is half patched: {where}. Run the patch with --revert, then patch again. Nothing was changed"
    )


def _edits(recipes: Iterable[Recipe]) -> tuple[Edit | Line, ...]:
    """Every edit once, in order."""
    return tuple(dict.fromkeys(edit for recipe in recipes for edit in recipe.edits))


def _by_file(recipes: Iterable[Recipe]) -> dict[str, list[Edit | Line]]:
    """Every edit once, in order, under its file."""
    files: dict[str, list[Edit | Line]] = {}
    for edit in _edits(recipes):
        files.setdefault(edit.file, []).append(edit)
    return files
