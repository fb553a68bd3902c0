"""PoinTr-style hosts: what is said of one, and which lines a patch inserts."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import replace

from ...patching import Line, Recipe, decorator
from ..base import Clone, Host
from ..loops.kind import sites_for
from ..loops.records import BY_HAND
from ..project import Project, dotted, inside
from .checking import check
from .structure import HostModel, RegistryHost, recognise

__all__ = ["NAME", "check", "find"]

NAME = "PoinTr-style host"
SOURCE_OF_LOSS = "loss: in the YAML, at the top level or under model:; APML_LOSS (apml run --loss) overrides it"
THEN = "Now write `loss: {NAME: APML, reduction: mean}` into a YAML; `apml check CONFIG` says what a run uses."


def find(clone: Clone, others: tuple[Host, ...] = ()) -> Host:
    """The PoinTr-style host in `clone`. Raises HostError saying what was looked for, and where."""
    found = recognise(clone.project)
    models = frozenset((model.definition.file, model.name) for model in found.models)
    functions = sites_for(clone.project, models)
    nodes = models | {(found.builder.file, found.builder.name)}
    own = _reads_of_loss(clone.project)
    replaced, kept = [], []
    for model in found.models:
        for site in model.sites:
            given = [stage for stage in site.stages if stage not in site.kept]
            place = f"{model.definition.file}:{model.definition.line} {model.name}.{site.attribute}"
            replaced.append(f"{place} (stages {', '.join(given)})")
            if site.kept:
                kept.append(f"{place}: {', '.join(site.kept)}, unless the YAML names it")
        if not model.sites:
            place = f"{model.definition.file}:{model.definition.line} {model.name}"
            if model.makes:
                replaced.append(f"{place}: every Chamfer object that it holds")
            else:
                kept.append(f"{place}: makes no Chamfer object")
    if not replaced and not functions.sites:
        by_hand = "\n  ".join(map(str, functions.refused)) or "\n    ".join(["By hand, in its get_loss:", *BY_HAND])
        why = (
            f"{found.root} is PoinTr-style (models {', '.join(model.name for model in found.models)}), but none of its "
            f"models trains with a Chamfer distance that can be replaced. {by_hand}"
        )
        return Host(found.root, NAME, (), (), refused=(why,), nodes=nodes)
    kept.append("every other loss of these models (partial matching, expansion, gridding, ...), validation, metrics")
    return Host(
        found.root,
        NAME,
        (
            ("builds models in", f"{found.builder.file} ({found.builder.name})"),
            ("reads YAML in", f"{found.reader.file} ({found.reader.name})"),
            ("models", ", ".join(model.name for model in found.models)),
            *(("not looked at", text) for text in functions.broken),
        ),
        (recipe_for_all(found, functions.recipe.edits), *(recipe_for_model(found, model) for model in found.models)),
        (*replaced, *map(str, functions.sites)),
        (*kept, *map(str, functions.kept)),
        tuple(map(str, functions.refused)),
        (*functions.warnings, *(f"{place} is read by the host: a top-level loss: is its own" for place in own)),
        tuple(_imports_of_nothing(found, clone.project)),
        source=SOURCE_OF_LOSS,
        then=THEN,
        models={model.name: recipe_for_model(found, model) for model in found.models},
        detail=replace(found, own_loss=own),
        nodes=nodes,
    )


def recipe_for_all(host: RegistryHost, functions: tuple[Line, ...] = ()) -> Recipe:
    """The recipe for all models: what builds them, what reads the YAML, and the Chamfer functions that they call."""
    builder = decorator(host.builder.file, host.builder.name, "takes_loss")
    chains = [edit for model in host.models for edit in _chain(model)]
    # The reader comes first: a clone in which a killed patch has written that file alone stops, see `guard`.
    return Recipe("all models", (_reader(host), builder, *chains, *functions))


def recipe_for_model(host: RegistryHost, model: HostModel) -> Recipe:
    """The recipe for one model: its class, and the function that reads the YAML."""
    place = model.definition
    return Recipe(model.name, (_reader(host), decorator(place.file, place.name, "takes_loss"), *_chain(model)))


def _chain(model: HostModel) -> tuple[Line, ...]:
    """The line that lets our names through a model that chooses its loss by a string."""
    if model.chain is None:
        return ()
    arguments = '("{}", "{}")'.format(*model.chain)
    anchor = f"{model.name}.build_loss_func"
    return (decorator(model.definition.file, anchor, "lets_loss_through", arguments),)


def _reader(host: RegistryHost) -> Line:
    return decorator(host.reader.file, host.reader.name, "hoists_loss")


def _reads_of_loss(project: Project) -> tuple[str, ...]:
    """Where the host reads entries of its own top-level ``loss:``, such as ``config.loss.weight``."""
    return tuple(
        f"{file}:{node.lineno} {dotted(node)}"
        for file, tree in project.trees.items()
        for node in inside(tree, ast.Attribute)
        if re.fullmatch(r"(?i:config|cfg|conf)\.loss\.\w+", dotted(node))
    )


def _imports_of_nothing(host: RegistryHost, project: Project) -> Iterator[str]:
    """Files that import the builder from a module that is not in the clone, because a folder was renamed, say."""
    name = host.builder.name
    for file, tree in project.trees.items():
        for node in inside(tree, ast.ImportFrom):
            if (
                name in [alias.name for alias in node.names]
                and project.module(file, node.module or "", node.level) is None
            ):
                yield (
                    f"{file}:{node.lineno} imports {name} from {node.module}, which is not in this clone; it is "
                    f"defined in {host.builder.file}"
                )
