"""PoinTr-style hosts: what a patched clone imports, and what the command line and the launcher use.

- `recognise(path)` tells such a codebase by its structure.
- `takes_loss`, `hoists_loss` are the decorators a patch inserts; `attach_to_module` does the same without one.
- `attach(model, config)` puts the loss of `config.loss` in the place of the host's own.
- `recipes(host)` says what a patch edits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..patching.records import Edit, Recipe
from .decorating import attach_to_module, hoist, hoists_loss, takes_loss
from ..patching.records import SOURCE
from .recognise import Definition, Host, HostModel, find_root, recognise

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "Definition", "Host", "HostModel", "all_recipes", "attach", "attach_to_module", "find_root", "hoist",
    "hoists_loss", "recipe_for_all", "recipe_for_model", "recognise", "takes_loss",
]  # fmt: skip


def attach(model: nn.Module, config: Any) -> nn.Module:
    """Put the loss that `config.loss` names into `model`; see :func:`apml_plugin.hosts.attaching.attach`."""
    from .attaching import attach as attach_now

    return attach_now(model, config)


def recipe_for_all(host: Host) -> Recipe:
    """Every model of the host: the function that builds them, and the one that reads the YAML."""
    builder = Edit(host.builder.file, host.builder.name, "takes_loss")
    chains = [edit for model in host.models for edit in _chain(model)]
    return Recipe("all models", (builder, *chains, _reader(host)))


def recipe_for_model(host: Host, name: str) -> Recipe:
    """One model only: its class, and the function that reads the YAML. HostError if there is no such model."""
    model = host.model(name)
    place = model.definition
    return Recipe(name, (Edit(place.file, place.name, "takes_loss"), *_chain(model), _reader(host)))


def all_recipes(host: Host) -> tuple[Recipe, ...]:
    """Every recipe this host could carry."""
    return (recipe_for_all(host), *(recipe_for_model(host, model.name) for model in host.models))


def _chain(model: HostModel) -> tuple[Edit, ...]:
    """Shared by the recipe for all models and the one for this model."""
    if model.chain is None:
        return ()
    arguments = '("{}", "{}")'.format(*model.chain)
    anchor = f"{model.name}.build_loss_func"
    return (Edit(model.definition.file, anchor, "lets_loss_through", SOURCE, True, arguments),)


def _reader(host: Host) -> Edit:
    return Edit(host.reader.file, host.reader.name, "hoists_loss", shared=True)
