"""Which prediction belongs to which ground truth."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from apml_plugin.errors import CloudFileError
from apml_plugin.files.clouds import READERS


@dataclass(frozen=True)
class Pairing:
    """pairs: (name, prediction's file, ground truth's file). left_over: files that nothing was measured of, and why."""

    pairs: tuple[tuple[str, Path, Path], ...]
    left_over: tuple[tuple[Path, str], ...]


def pair_up(pred: str | os.PathLike[str], gt: str | os.PathLike[str]) -> Pairing:
    """Two files make one pair. In two folders, files pair by their path in the folder without its suffix.

    Raises CloudFileError if one is a file and the other a folder, if either does not exist, or if nothing pairs.
    """
    left, right = Path(pred).expanduser(), Path(gt).expanduser()
    for name, path in (("the prediction", left), ("the ground truth", right)):
        if not path.exists():
            raise CloudFileError(f"{name}, {path}, does not exist")
    if left.is_dir() != right.is_dir():
        raise CloudFileError(f"{left} and {right}: give two files or two folders, not one of each")
    if not left.is_dir():
        return Pairing(((left.stem, left, right),), ())
    over: list[tuple[Path, str]] = []
    ours, theirs = _files(left, over), _files(right, over)
    pairs = tuple((name, ours[name], theirs[name]) for name in sorted(ours.keys() & theirs.keys()))
    over += [(ours[name], f"no file {name}.* in {right}") for name in sorted(ours.keys() - theirs.keys())]
    over += [(theirs[name], f"no file {name}.* in {left}") for name in sorted(theirs.keys() - ours.keys())]
    if not pairs:
        raise CloudFileError(
            f"no file of {left} has the name of one of {right} ({len(ours)} and {len(theirs)} files of kinds "
            f"{', '.join(READERS)}); names count, suffixes do not"
        )
    return Pairing(pairs, tuple(over))


def _files(folder: Path, over: list[tuple[Path, str]]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in sorted(folder.rglob("*")):
        inside = file.relative_to(folder)
        if not file.is_file() or any(part.startswith(".") for part in inside.parts):
            continue
        name = inside.with_suffix("").as_posix()
        if file.suffix.lower() not in READERS:
            over.append((file, "a kind of file that is not read"))
        elif name in found:
            over.append((file, f"{found[name].name} of the same name was taken"))
        else:
            found[name] = file
    return found
