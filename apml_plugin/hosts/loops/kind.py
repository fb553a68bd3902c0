"""What is said of a host with a training loop of its own."""

from __future__ import annotations

from typing import Any

from ...errors import HostError
from ..base import Clone, Finding, Host
from .recognise import read, recipe, recognise

__all__ = ["NAME", "check", "find"]

NAME = "host with its own training loop"


def find(clone: Clone, others: tuple[Host, ...] = ()) -> Host:
    """The loops in `clone` that `others` do not lead to. Raises HostError saying what was found where."""
    theirs = [other.nodes for other in others if other.nodes]
    fork = read(clone.project, theirs[0]) if theirs else recognise(clone.project)
    if others and not (theirs and fork.sites):
        raise HostError(f"{clone.root} has no training loop but those of the {others[0].kind}")
    chosen = [f"{site.file}:{site.line} {site.name}: {site.what}" for site in fork.chains]
    source = "APML_LOSS (apml run --loss)"
    if chosen:
        source = f"the string (or mapping) the host chooses its loss by: {'; '.join(chosen)}; {source} wins over it"
    return Host(
        fork.root,
        NAME,
        (
            ("trains in", ", ".join(fork.loops)),
            ("losses", ", ".join(f"{s.file} ({s.name})" for s in fork.sites)),
            *(("not looked at", text) for text in fork.broken),
        ),
        (recipe(fork),),
        tuple(str(site) for site in fork.sites),
        (*(str(kept) for kept in fork.kept), *(str(v) for v in fork.validators), "every call without a gradient"),
        tuple(str(item) for item in fork.refused),
        fork.warnings,
        source=source,
        then="Now run it with APML_LOSS='{NAME: APML, reduction: mean}' in the environment"
        + (", or write that where the host chooses its loss." if chosen else "."),
        detail=fork,
    )


def check(found: Finding, config: dict[str, Any]) -> bool:
    """False: such hosts choose their loss in many ways, and none of them is a config of a known form."""
    return False
