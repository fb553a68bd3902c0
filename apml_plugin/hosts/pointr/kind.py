"""What is said of a PoinTr-style host, and what a patch edits in it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from ...patching import Edit, Recipe
from ..base import Host
from ..forks.project import Project
from ..forks.sites import SOURCE
from .checking import check
from .recognise import recognise
from .structure import HostModel, RegistryHost

__all__ = ["NAME", "check", "find"]

NAME = "PoinTr-style host"
SOURCE_OF_LOSS = "loss: in the YAML, at the top level or under model:; APML_LOSS (apml run --loss) wins over it"
THEN = "Now write `loss: {NAME: APML, reduction: mean}` into a YAML; `apml check CONFIG` says what a run uses."


def find(root: Path, others: tuple[Host, ...] = ()) -> Host:
    """The PoinTr-style host at `root`. Raises HostError saying what was looked for, and where."""
    found = recognise(root)
    replaced, kept = [], []
    for model in found.models:
        for site in model.sites:
            given = [stage for stage in site.stages if stage not in site.kept]
            place = f"{model.definition.file}:{model.definition.line} {model.name}.{site.attribute}"
            replaced.append(f"{place} (stages {', '.join(given)})")
            if site.kept:
                kept.append(f"{place}: {', '.join(site.kept)}, unless the YAML names it")
        if not model.sites:
            replaced.append(
                f"{model.definition.file}:{model.definition.line} {model.name}: every Chamfer object that hangs on it"
            )
    kept.append("every other loss of these models (partial matching, expansion, gridding, ...), validation, metrics")
    return Host(
        found.root,
        NAME,
        (
            ("builds models in", f"{found.builder.file} ({found.builder.name})"),
            ("reads YAML in", f"{found.reader.file} ({found.reader.name})"),
            ("models", ", ".join(model.name for model in found.models)),
        ),
        (recipe_for_all(found), *(recipe_for_model(found, model) for model in found.models)),
        tuple(replaced),
        tuple(kept),
        findings=tuple(_imports_of_nothing(found)),
        source=SOURCE_OF_LOSS,
        then=THEN,
        models={model.name: recipe_for_model(found, model) for model in found.models},
        detail=found,
    )


def recipe_for_all(host: RegistryHost) -> Recipe:
    """Every model of the host: the function that builds them, and the one that reads the YAML."""
    builder = Edit(host.builder.file, host.builder.name, "takes_loss", SOURCE)
    chains = [edit for model in host.models for edit in _chain(model)]
    return Recipe("all models", (builder, *chains, _reader(host)))


def recipe_for_model(host: RegistryHost, model: HostModel) -> Recipe:
    """One model only: its class, and the function that reads the YAML."""
    place = model.definition
    return Recipe(model.name, (Edit(place.file, place.name, "takes_loss", SOURCE), *_chain(model), _reader(host)))


def _chain(model: HostModel) -> tuple[Edit, ...]:
    """Shared by the recipe for all models and the one for this model."""
    if model.chain is None:
        return ()
    arguments = '("{}", "{}")'.format(*model.chain)
    anchor = f"{model.name}.build_loss_func"
    return (Edit(model.definition.file, anchor, "lets_loss_through", SOURCE, True, arguments),)


def _reader(host: RegistryHost) -> Edit:
    return Edit(host.reader.file, host.reader.name, "hoists_loss", SOURCE, shared=True)


def _imports_of_nothing(host: RegistryHost) -> Iterator[str]:
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
