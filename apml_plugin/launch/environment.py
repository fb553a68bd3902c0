"""The environment variables between ``apml run`` and the interpreters below it. Standard library only."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import NamedTuple

from apml_plugin.announce import TOLD

STANDINS = "APML_RUN_STANDINS"
"""JSON object: the stand-ins to use, each with the error of the real import."""

CPU = "APML_RUN_CPU"
"""Why CUDA calls are taken to the CPU; empty or unset: they are not."""

ATTACH = "APML_RUN_ATTACH"
"""Not empty: modules of projects get the lines of their recipes."""

RECIPE = "APML_RUN_RECIPE"
"""JSON: the recipe of the project that the command belongs to (:mod:`.recipes`); empty: each process works it out."""

ASKED = "APML_RUN_ASKED"
"""Which loss was asked for, and where, in words; empty or unset: none was, as far as the parent can tell."""

HOME = "APML_RUN_HOME"
"""Folder that holds ``apml_plugin``, for a script whose Python finds it nowhere else."""

TRUST = "APML_RUN_TRUST_CHECKPOINTS"
"""Not empty: torch.load keeps PyTorch's own behaviour, unsafe files included."""


class Settings(NamedTuple):
    """What an interpreter of a run reads."""

    standins: dict[str, str]
    cpu: str
    attach: bool
    asked: str = ""
    recipe: str = ""


def read(environ: Mapping[str, str]) -> Settings | None:
    """The settings of the run this interpreter belongs to, None outside of one."""
    if STANDINS not in environ:
        return None
    return Settings(
        json.loads(environ[STANDINS]), environ.get(CPU, ""), bool(environ.get(ATTACH)), environ.get(ASKED, "")
    )


def write(environ: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """A copy of ``environ`` in which a Python starts with our hooks."""
    here = os.path.dirname(os.path.abspath(__file__))
    result = dict(environ)
    result.pop(TOLD, None)
    result.pop(TRUST, None)
    result[STANDINS] = json.dumps(settings.standins)
    result[CPU] = settings.cpu
    result[ATTACH] = "1" if settings.attach else ""
    result[RECIPE], result[ASKED] = settings.recipe, settings.asked
    result[HOME] = os.path.dirname(os.path.dirname(here))
    site = os.path.join(here, "site")
    others = [entry for entry in result.get("PYTHONPATH", "").split(os.pathsep) if entry and entry != site]
    result["PYTHONPATH"] = os.pathsep.join([site, *others])
    return result
