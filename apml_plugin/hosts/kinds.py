"""Every kind of host under one roof: told apart by structure, described and patched alike."""

from __future__ import annotations

import ast
import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import HostError
from ..patching import Edit, Line, Recipe
from .loops import Fork
from .loops import recipe as fork_recipe
from .loops import recognise as recognise_fork
from .loops.project import Project
from .pointr import Host, all_recipes, recipe_for_all, recipe_for_model, recognise


@dataclass(frozen=True)
class Found:
    """A host of any kind. described: label and text, line by line. recipes: all it could carry, the first for all.

    replaced, kept, refused: training losses that become ours, that stay, that cannot be replaced. source: where the
    loss is taken from. then: what to do after patching. findings: what is broken in the host itself, told only.
    """

    root: Path
    kind: str
    described: tuple[tuple[str, str], ...]
    recipes: tuple[Recipe, ...]
    replaced: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    source: str = ""
    then: str = ""
    host: Any = field(default=None, compare=False)
    findings: tuple[str, ...] = ()

    @property
    def edits(self) -> tuple[Edit | Line, ...]:
        return tuple(dict.fromkeys(self.recipes[0].edits))

    def recipe(self, model: str) -> Recipe:
        """The recipe for one model alone. Raises HostError where there is no such model, or no models to choose."""
        if isinstance(self.host, Host):
            return recipe_for_model(self.host, model)
        raise HostError(f"{self.root} ({self.kind}) has no models to patch one by one; leave out --model")


def identify(path: str | os.PathLike[str]) -> Found:
    """What kind of host a path is.

    Raises HostError saying what was looked for, what was found where, and what to do by hand; a file that could not
    be read because of a syntax error comes first.
    """
    try:
        return _with_registry(recognise(path))
    except HostError as error:
        no_registry = str(error)
    from .csi2pointcloud.found import found as csi_found
    from .csi2pointcloud.structure import recognise as recognise_csi

    with contextlib.suppress(HostError):
        return csi_found(recognise_csi(path))
    try:
        return _with_loop(recognise_fork(path))
    except HostError as error:
        message = str(error)
    # A codebase without any training is most likely the wrong folder: what makes a PoinTr-style one helps more.
    raise HostError(no_registry if "has no training loop" in message else message)


def _with_registry(host: Host) -> Found:
    replaced, kept = [], []
    for model in host.models:
        for site in model.sites:
            given = [stage for stage in site.stages if stage not in site.kept]
            place = f"{model.definition.file}:{model.definition.line} {model.name}.{site.attribute}"
            replaced.append(f"{place} (stages {', '.join(given)})")
            if site.kept:
                kept.append(f"{place}: {', '.join(site.kept)}, unless the YAML names it")
        if not model.sites:
            kept.append(f"{model.definition.file}:{model.definition.line} {model.name}: has no Chamfer to replace")
    kept.append("every other loss of these models (partial matching, expansion, gridding, ...), validation, metrics")
    names = ", ".join(model.name for model in host.models)
    return Found(
        host.root,
        "PoinTr-style host",
        (
            ("builds models in", f"{host.builder.file} ({host.builder.name})"),
            ("reads YAML in", f"{host.reader.file} ({host.reader.name})"),
            ("models", names),
        ),
        all_recipes(host),
        tuple(replaced),
        tuple(kept),
        (),
        "loss: in the YAML, at the top level or under model:; APML_LOSS (apml run --loss) wins over it",
        "Now write `loss: {NAME: APML, reduction: mean}` into a YAML; `apml check CONFIG` says what a run uses.",
        host,
        tuple(_imports_of_nothing(host)),
    )


def _imports_of_nothing(host: Host) -> Iterator[str]:
    """Files that import the builder from a module that the clone does not have: a folder is missing or renamed."""
    project = Project(host.root)
    name = host.builder.name
    for file, tree in project.trees.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or name not in [alias.name for alias in node.names]:
                continue
            if not project.has_module(file, node.module or "", node.level):
                yield (
                    f"{file}:{node.lineno} imports {name} from {node.module}, which is not in this clone; it is "
                    f"defined in {host.builder.file}"
                )


def _with_loop(fork: Fork) -> Found:
    chosen = [f"{site.file}:{site.line} {site.name}: {site.what}" for site in fork.chains]
    source = "APML_LOSS (apml run --loss)"
    if chosen:
        source = f"the string (or mapping) the host chooses its loss by: {'; '.join(chosen)}; {source} wins over it"
    return Found(
        fork.root,
        "host with its own training loop",
        (("trains in", ", ".join(fork.loops)), ("losses", ", ".join(f"{s.file} ({s.name})" for s in fork.sites))),
        (fork_recipe(fork),),
        tuple(str(site) for site in fork.sites),
        (*(str(kept) for kept in fork.kept), *(str(v) for v in fork.validators), "every call without a gradient"),
        tuple(f"{item.file}:{item.line} {item.name}: {item.why}" for item in fork.refused),
        source,
        "Now run it with APML_LOSS='{NAME: APML, reduction: mean}' in the environment"
        + (", or write that where the host chooses its loss." if chosen else "."),
        fork,
    )


__all__ = ["Found", "identify", "recipe_for_all"]
