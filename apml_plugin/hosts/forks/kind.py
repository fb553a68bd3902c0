"""What is said of a host with a training loop of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...errors import HostError
from ..base import Finding, Host
from .recognise import recipe, recognise

__all__ = ["NAME", "check", "find"]

NAME = "host with its own training loop"


def find(root: Path, others: tuple[Host, ...] = ()) -> Host:
    """The loops at `root` that `others` do not lead to. Raises HostError saying what was found where."""
    if others:
        raise HostError(f"{root} is a {others[0].kind}")
    fork = recognise(root)
    chosen = [f"{site.file}:{site.line} {site.name}: {site.what}" for site in fork.chains]
    source = "APML_LOSS (apml run --loss)"
    if chosen:
        source = f"the string (or mapping) the host chooses its loss by: {'; '.join(chosen)}; {source} wins over it"
    return Host(
        fork.root,
        NAME,
        (("trains in", ", ".join(fork.loops)), ("losses", ", ".join(f"{s.file} ({s.name})" for s in fork.sites))),
        (recipe(fork),),
        tuple(str(site) for site in fork.sites),
        (*(str(kept) for kept in fork.kept), *(str(v) for v in fork.validators), "every call without a gradient"),
        tuple(str(item) for item in fork.refused),
        source=source,
        then="Now run it with APML_LOSS='{NAME: APML, reduction: mean}' in the environment"
        + (", or write that where the host chooses its loss." if chosen else "."),
        detail=fork,
    )


def check(found: Finding, config: dict[str, Any]) -> bool:
    """False: such hosts choose their loss in many ways, and none of them is a config of a known form."""
    return False
