"""Recipe in, plan out: apply, check, revert.

A host can carry several recipes at once (the builder's, and one per model). They share one edit, the reader
of the YAML; it goes in with the first recipe and comes out with the last.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import PatchError
from . import source
from .files import read, write
from .records import Change, Edit, Plan, Recipe

__all__ = ["check", "plan_apply", "plan_revert", "write"]


def check(root: Path, known: Iterable[Recipe]) -> tuple[str, ...]:
    """Names of the recipes in place. Raises PatchError for a half-patched or hand-modified host."""
    known = tuple(known)
    state = {edit: source.is_patched(read(root, edit.file), edit) for edit in _edits(known)}
    own = [edit for edit, patched in state.items() if patched and not edit.shared]
    for edit, patched in state.items():
        if edit.shared and patched != bool(own):
            there, missing = (
                (edit.file, "the definition that builds the model") if patched else (own[0].file, edit.file)
            )
            raise PatchError(
                f"{root} is half patched: {there} is patched, but {missing} is not. Run the patch with --revert, "
                "then patch again. Nothing was changed"
            )
    return tuple(recipe.name for recipe in known if all(state[edit] for edit in recipe.edits))


def plan_apply(root: Path, recipes: Sequence[Recipe], known: Iterable[Recipe]) -> Plan:
    """The plan that puts `recipes` in place. `known` lists every recipe this host could carry.

    Files that are patched already are left as they are. Raises PatchError when the host is half patched.
    """
    check(root, known)
    changes = []
    for edit in _edits(recipes):
        before = read(root, edit.file)
        if source.is_patched(before, edit):
            changes.append(Change(edit.file, before, before, "already patched"))
        else:
            changes.append(Change(edit.file, before, source.insert(before, edit), "patched"))
    return Plan(root, tuple(changes))


def plan_revert(root: Path, recipes: Sequence[Recipe], known: Iterable[Recipe]) -> Plan:
    """The plan that takes `recipes` out again, every other byte kept; a half-patched host can be reverted too.

    The shared edit stays, and the plan says so, while another recipe of `known` still needs it.
    """
    leaving = _edits(recipes)
    staying = [edit for edit in _edits(known) if edit not in leaving]
    still = [edit.file for edit in staying if not edit.shared and source.marked(read(root, edit.file), edit).any]
    changes = []
    for edit in leaving:
        before = read(root, edit.file)
        after = source.remove(before, edit)
        if after == before:
            changes.append(Change(edit.file, before, before, "not patched"))
        elif edit.shared and still:
            changes.append(Change(edit.file, before, before, "left patched", f"{', '.join(still)} still needs it"))
        else:
            changes.append(Change(edit.file, before, after, "reverted"))
    return Plan(root, tuple(changes))


def _edits(recipes: Iterable[Recipe]) -> tuple[Edit, ...]:
    """Every edit once, in order."""
    return tuple(dict.fromkeys(edit for recipe in recipes for edit in recipe.edits))
