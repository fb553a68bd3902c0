"""The protocol of a kind of host, the list of kinds, and how the hosts in a folder are found.

A host is a codebase that we plug into. To add a kind, make a folder beside this file with a module ``kind`` that has
the names of `Kind`.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import AmbiguousError, HostError, PatchError
from ..files import sources
from ..patching import Line, Recipe
from ..patching import check as patched

if TYPE_CHECKING:
    from .project import Project

_FOLDERS = {path.parent.name for path in Path(__file__).parent.glob("*/kind.py")}
KINDS = (*sorted(_FOLDERS - {"loops"}), "loops")
"""The folders beside this file that have a module ``kind``, in the order in which they look at a clone.

The most general one comes last."""


@dataclass(frozen=True)
class Host:
    """What a kind says of a codebase: which lines a patch inserts, and what `apml patch --explain` shows.

    Attributes:
        described: (label, text) of each line that describes it.
        recipes: what a patch can insert; the first recipe is for the whole host.
        replaced: training losses that are replaced, each with file:line. So are `kept` and `refused`:
        kept: losses that stay the host's.
        refused: training losses that cannot be replaced, and what to write by hand.
        warnings: what else changes, or goes wrong, with another loss.
        findings: what is broken in the host itself.
        source: where the loss is taken from.
        then: what to do after patching.
        models: name -> recipe for one model alone.
        detail: the kind's own record.
        inside: the hosts of several kinds that this one consists of.
        nodes: definitions (file, name) that other kinds leave out.
    """

    root: Path
    kind: str
    described: tuple[tuple[str, str], ...]
    recipes: tuple[Recipe, ...]
    replaced: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    source: str = ""
    then: str = ""
    models: Mapping[str, Recipe] = field(default_factory=dict, compare=False)
    detail: Any = field(default=None, compare=False)
    inside: tuple[Host, ...] = field(default=(), compare=False)
    nodes: frozenset[tuple[str, str]] = field(default=frozenset(), compare=False)

    @property
    def parts(self) -> tuple[Host, ...]:
        """The hosts that this one consists of: itself, or those of several kinds."""
        return self.inside or (self,)

    @property
    def edits(self) -> tuple[Line, ...]:
        return tuple(dict.fromkeys(self.recipes[0].edits)) if self.recipes else ()

    def recipe(self, model: str) -> Recipe:
        """The recipe for one model alone. Raises HostError if there is no such model."""
        if model in self.models:
            return self.models[model]
        has = f"it has {', '.join(self.models)}" if self.models else "leave out --model"
        raise HostError(f"{self.root} ({self.kind}) has no model '{model}' to patch alone; {has}")


@dataclass
class Finding:
    """What `apml check` says of a config.

    Attributes:
        patched: names of the recipes that are in place.
        model: name of the model.
        found_at: where the config names the loss.
        stages: stage -> description of its loss; empty for the host's own loss.
        error: why the run would stop.
        half_patched: whether only some lines of a recipe are in place.
        unpatched: what plain `python` would do with a clone that is not patched; empty if it is.
    """

    config: Path
    host: Host | None = None
    patched: tuple[str, ...] = ()
    model: str = ""
    found_at: str = ""
    stages: dict[str, str] = field(default_factory=dict)
    error: str = ""
    half_patched: bool = False
    unpatched: str = ""
    warnings: list[str] = field(default_factory=list)

    @property
    def grouped(self) -> list[tuple[list[str], str]]:
        """(stages, description of the loss that they share), in the order of `stages`."""
        texts = dict.fromkeys(self.stages.values())
        return [([stage for stage, text in self.stages.items() if text == shared], shared) for shared in texts]


class NoTraining(HostError):
    """The clone has no training loop, or none but those of another kind of host."""


class Clone:
    """A folder that may hold hosts. Its Python files (`project`) are parsed once for all kinds."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.root = Path(path).expanduser().resolve()
        if not self.root.is_dir():
            raise HostError(f"{path} is not a folder; give the root of the clone (the folder with its main.py)")
        if (self.root / "apml_plugin" / "_moved.py").is_file():
            raise HostError(f"{self.root} is apml-plugin itself; give the root of the codebase to plug into")

    @cached_property
    def project(self) -> Project:
        from .project import Project

        return Project(self.root)


class Kind(Protocol):
    """The names in the module ``kind`` of a kind's folder."""

    NAME: str
    """What `Host.kind` is for it, in words: "PoinTr-style host"."""

    def find(self, clone: Clone, others: tuple[Host, ...]) -> Host:
        """The host of this kind in `clone`, recognised by its structure, never by importing any of it.

        Args:
            others: the hosts of the kinds before, whose definitions are to be left out.

        Returns a host without recipes if nothing in it can be replaced; its `refused` says why.
        Raises HostError saying what was looked for, and where, if there is no host of this kind; AmbiguousError if
        there is one, but not which files make it.
        """

    def check(self, found: Finding, config: dict[str, Any]) -> bool:
        """Fills in `found` (its `host` is set) with what a run with `config` would use.

        Returns False if `config` is not one of this kind.
        """


def kinds() -> tuple[Kind, ...]:
    """The modules of `KINDS`."""
    return tuple(importlib.import_module(f"{__package__}.{name}.kind") for name in KINDS)


def identify(path: str | os.PathLike[str]) -> Host:
    """The host in the clone at `path`; several kinds of hosts are merged into one.

    Raises HostError saying what was looked for, what was found where, and what to do by hand; AmbiguousError if two
    files could be what trains.

    >>> identify("PoinTr").recipes  # doctest: +SKIP
    """
    clone = Clone(path)
    root = clone.root
    if (above := sources.above_package(root)) != root:
        raise HostError(f"{root} is a package of the codebase at {above}; give that folder")
    hosts: list[Host] = []
    reasons: list[HostError] = []
    for kind in kinds():
        try:
            hosts.append(kind.find(clone, tuple(hosts)))
            if not hosts[-1].edits:
                raise HostError("\n  ".join(hosts[-1].refused))
        except AmbiguousError:
            raise
        except HostError as error:
            reasons.append(error)
    patchable = [host for host in hosts if host.edits]
    if not patchable:
        # A folder without any training is most likely the wrong one: then the kind before says what it looked for.
        raise HostError(str(next(error for error in reversed(reasons) if not isinstance(error, NoTraining))))
    return patchable[0] if len(patchable) == 1 else _merged(root, patchable)


def _merged(root: Path, hosts: list[Host]) -> Host:
    def merged(name: str) -> tuple[Any, ...]:
        return tuple(dict.fromkeys(entry for host in hosts for entry in getattr(host, name)))

    every = Recipe("everything", tuple(dict.fromkeys(edit for host in hosts for edit in host.recipes[0].edits)))
    return Host(
        root,
        " and ".join(host.kind for host in hosts),
        merged("described"),
        (every, *(recipe for host in hosts for recipe in host.recipes)),
        merged("replaced"),
        merged("kept"),
        merged("refused"),
        merged("warnings"),
        merged("findings"),
        source="; ".join(host.source for host in hosts),
        then=hosts[0].then,
        models={name: recipe for host in hosts for name, recipe in host.models.items()},
        inside=tuple(hosts),
    )


def check_config(
    path: str | os.PathLike[str],
    host: str | os.PathLike[str] | None = None,
    *,
    near: str | os.PathLike[str] | None = None,
) -> Finding:
    """Reads a config as its host would, and says which loss a run with it gets.

    The host is that at `host`, else the one around `near`, else the one that the file lies in, else the one around the
    current folder.
    Raises HostError if the file cannot be read, or if `host` is given and is no host; AmbiguousError if the file gives
    a loss twice, or if two files of the host could be what trains.
    """
    file = Path(path).expanduser()
    config = read_yaml(file)
    at = host_of(host, near, file)
    for kind in kinds():
        found = Finding(file, next((part for part in at.parts if part.kind == kind.NAME), None) if at else None)
        if found.host:
            try:
                found.patched = patched(found.host.root, at.recipes)  # type: ignore[union-attr]
            except PatchError as error:
                found.half_patched = True
                half = str(error).removesuffix(". Nothing was changed")
                found.warnings.append(f"{half}. Until then part of what a config says may be ignored")
        if kind.check(found, config):
            return found
    raise HostError(f"{file} is no config of a kind of host this plugin knows")


def host_of(given: str | os.PathLike[str] | None, *places: str | os.PathLike[str] | None) -> Host | None:
    """The host at `given`; without it, the first one around any of `places` or the current folder, or None.

    Raises HostError if `given` is no host, AmbiguousError as `identify`.
    """
    if given is not None:
        return identify(given)
    starts = dict.fromkeys(Path(place) for place in (*places, Path.cwd()) if place is not None)
    return next(filter(None, map(around, starts)), None)


def around(start: Path) -> Host | None:
    """The host that a file is in: the nearest folder upwards that is one, or None."""
    here = start.expanduser().resolve()
    for folder in sources.upwards(here if here.is_dir() else here.parent):
        if any(sources.holds_python(folder / name) for name in (".", "scripts", "src")):
            try:
                return identify(folder)
            except AmbiguousError:
                raise
            except HostError:
                continue
    return None


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file as a mapping.

    Raises HostError with its name if it is missing, broken or no mapping; AmbiguousError if a key that decides the
    loss is in it twice.
    """
    from ..files import opening, yamls

    try:
        data = yamls.read_yaml(path)
    except OSError as error:
        raise HostError(f"{path} {opening.why(error)}") from None
    except yamls.GivenTwiceError as error:
        raise AmbiguousError(f"{path}: {error}") from None
    except ValueError as error:
        raise HostError(f"{path} is not valid YAML, or more than plain values: {error}") from None
    if not isinstance(data, dict):
        raise HostError(f"{path} holds {type(data).__name__}, not a mapping with model:, dataset: and so on")
    return data
