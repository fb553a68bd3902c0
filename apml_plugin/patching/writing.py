"""Recipe in, plan out: apply, check, revert; and a plan written to disk, all of its files or none.

A host can carry several recipes at once (one for all models, and one per model). Some share a line, such as the one
above the function that reads the YAML: it goes in with the first of them and comes out with the last.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import stat
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..errors import PatchError
from ..files.sources import inside, python_files, read_source, why
from . import source
from .records import MARKER, Change, Line, Plan, Recipe


def check(root: Path, known: Iterable[Recipe]) -> tuple[str, ...]:
    """Names of the recipes that are in place. Raises PatchError for a host that is half patched or edited by hand."""
    known = tuple(known)
    by_file = _by_file(known)
    present = {edit for file, edits in by_file.items() for edit in source.present(_read(root, file), file, edits)}
    placed = [recipe for recipe in known if present.issuperset(recipe.edits)]
    explained = {edit for recipe in placed for edit in recipe.edits}
    for recipe in known:
        extra = [edit for edit in recipe.edits if edit in present - explained]
        missing = [edit for edit in recipe.edits if edit not in present]
        if extra and missing:
            where = f"{extra[0].file} is patched, but {missing[0].file} is not"
            if extra[0].file == missing[0].file:
                where = f"{extra[0].file} is patched only in part"
            raise PatchError(
                f"{root} is half patched: {where}. Run the patch with --revert, then patch again. Nothing was changed"
            )
    return tuple(recipe.name for recipe in placed)


def plan_apply(root: Path, recipes: Sequence[Recipe], known: Iterable[Recipe]) -> Plan:
    """The plan that inserts the lines of `recipes`. `known` lists every recipe that this host could carry.

    Files that are already patched stay as they are. Raises PatchError when the host is half patched.
    """
    known = tuple(known)
    _reject_links(root)
    check(root, known)
    every = _by_file((*known, *recipes))
    changes = []
    for file, edits in _by_file(recipes).items():
        before = _read(root, file)
        present = source.present(before, file, every[file])
        if present.issuperset(edits):
            changes.append(Change(file, before, before, "already patched"))
        else:
            after = source.put(before, file, [edit for edit in every[file] if edit in present or edit in edits])
            changes.append(Change(file, before, after, "patched"))
    return Plan(root, tuple(changes))


def plan_revert(root: Path, recipes: Sequence[Recipe], known: Iterable[Recipe]) -> Plan:
    """The plan that removes the lines of `recipes`; every other byte is kept. A half-patched host can be reverted, too.

    If no recipe of `known` remains, every line goes that any version of this plugin inserted into any Python file of
    the clone, also in files that do not parse. Otherwise a line stays while a remaining recipe needs it, and the plan
    says so.
    """
    _reject_links(root)
    known = (*known, *recipes)
    every = _by_file(known)
    if all(recipe in recipes for recipe in known):
        places = {inside(root, file) for file in every}
        for file in python_files(root):
            with contextlib.suppress(OSError):  # a file that cannot be read was not patched either
                # A link within the clone is the same file once more.
                if inside(root, file) not in places and MARKER.encode() in read_source(root, file):
                    places.add(inside(root, file))
                    every.setdefault(file, [])
        leaving = every
    else:
        leaving = _by_file(recipes)
    out = {edit for recipe in recipes for edit in recipe.edits}
    data = {file: _read(root, file) for file in every}
    texts = {file: source.texts(data[file]) for file in every}
    placed = {edit for file, edits in every.items() for edit in source.found(data[file], file, edits)}
    # A recipe remains if a line of its own is in place. In a file of its own that line may have been moved by hand.
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
        same = texts[file] == Counter({text for edit in stay for text in (edit.line, edit.import_line)})
        after = before if same else source.put(before, file, stay, every[file])
        if after != before:
            changes.append(Change(file, before, after, "reverted"))
        elif stay:
            changes.append(Change(file, before, before, "left patched", f"{', '.join(dict(needs))} still needs it"))
        else:
            changes.append(Change(file, before, before, "not patched"))
    return Plan(root, tuple(changes))


def write(plan: Plan) -> tuple[Path, ...]:
    """Writes a plan's changes: all files or none. File modes stay. Returns the files that a killed patch had left.

    Every new text is first written beside its file. Then the files are replaced one after another; if that fails, or
    if Ctrl-C is pressed, all of them get their old bytes back. Only a process that is killed between two replacements
    leaves a clone half patched: `check` reports that, and a revert repairs it. What such a process left beside the
    files is removed.

    Raises:
        PatchError: a file is no longer what the plan was made from, is read-only, or cannot be written.
    """
    changes = [(inside(plan.root, change.file), change) for change in plan.changes if change.differs]
    for target, change in changes:
        if _read(plan.root, change.file) != change.before:
            raise PatchError(f"{change.file} changed while the patch was being made; run it again. Nothing was changed")
        # Replacing a file needs only a writable folder, and root may write any file: the file's own mode decides.
        if not target.stat().st_mode & stat.S_IWUSR:
            raise PatchError(f"{target} is read-only: chmod u+w {shlex.quote(str(target))} first. Nothing was changed")
        if not os.access(target, os.W_OK):
            raise PatchError(f"{target} belongs to another user: ask them, or patch a copy. Nothing was changed")
    with _interrupts_held() as pressed:
        try:
            left = _remove_left(plan.root)
            for target, change in changes:
                _stage(target, change.after)
            for target, _ in changes:
                if pressed:
                    raise KeyboardInterrupt
                os.replace(_staged(target), target)
        except BaseException as error:
            _put_back(plan.root, changes)
            if isinstance(error, OSError):
                raise PatchError(f"{_why_not(error, plan.root)}. Nothing was changed") from error
            raise
    return left


@contextlib.contextmanager
def _interrupts_held() -> Iterator[list[int]]:
    """Holds Ctrl-C back until the end of the block; the list that it yields is empty until then.

    Files could not be restored otherwise: a second Ctrl-C would end that, too.
    """
    pressed: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # only the main one gets signals
        yield pressed
        return
    before = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        signal.raise_signal(signal.SIGINT)


def _remove_left(root: Path) -> tuple[Path, ...]:
    """Removes what `_stage` of a killed process left, and returns it."""
    staged = (_staged(root / file) for file in python_files(root))
    left = tuple(path for path in staged if path.is_file() and not path.is_symlink())
    for path in left:
        path.unlink()
    return left


def _put_back(root: Path, changes: Sequence[tuple[Path, Change]]) -> None:
    try:
        for target, change in changes:
            if target.read_bytes() != change.before:
                _stage(target, change.before)
                os.replace(_staged(target), target)
            _staged(target).unlink(missing_ok=True)
    except OSError as error:
        raise PatchError(
            f"{_why_not(error, root)}, and the files that were written before cannot be restored either. The clone is "
            "half patched: run apml patch --revert when the disk can be written again"
        ) from error


def _why_not(error: OSError, root: Path) -> str:
    return f"could not write {error.filename or root}: {error.strerror}"


def _stage(target: Path, data: bytes) -> None:
    """`data` in a temporary file beside `target`, with its mode, ready to replace it."""
    temporary = _staged(target)
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    shutil.copymode(target, temporary)


def _staged(target: Path) -> Path:
    return target.with_name(f".{target.name}.apml")


def _read(root: Path, file: str) -> bytes:
    try:
        return read_source(root, file)
    except OSError as error:
        raise PatchError(f"{root / file}{why(error)}. Nothing was changed") from None


def _reject_links(root: Path) -> None:
    """Raises PatchError for a Python file that is a link out of the clone: it may be what trains."""
    for file in python_files(root):
        try:
            inside(root, file)
        except OSError as error:
            raise PatchError(f"{root / file}{why(error)}. Nothing was changed") from None


def _by_file(recipes: Iterable[Recipe]) -> dict[str, list[Line]]:
    """Each line once, in order, under its file."""
    files: dict[str, list[Line]] = {}
    for edit in dict.fromkeys(edit for recipe in recipes for edit in recipe.edits):
        files.setdefault(edit.file, []).append(edit)
    return files
