"""The environment variables by which ``apml run`` tells the interpreters below it what to do. Standard library only."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import NamedTuple

from apml_plugin.announce import TOLD

STANDINS = "APML_RUN_STANDINS"
"""JSON object: each stand-in to use -> the error of the real import."""

CPU = "APML_RUN_CPU"
"""Why CUDA calls are taken to the CPU; empty: they are not."""

ATTACH = "APML_RUN_ATTACH"
"""Not empty: modules of projects get the lines of their recipes."""

RECIPE = "APML_RUN_RECIPE"
"""JSON: the recipe of the project that the command belongs to (:mod:`.recipes`); empty: each process works it out."""

ASKED = "APML_RUN_ASKED"
"""Which loss was asked for, and where, in words; empty: none was, as far as the parent can tell."""

HOME = "APML_RUN_HOME"
"""Folder that holds ``apml_plugin``, for a script whose Python finds it nowhere else."""

TRUST = "APML_RUN_TRUST_CHECKPOINTS"
"""Not empty: torch.load keeps PyTorch's own behaviour, unsafe files included."""

_HERE = os.path.dirname(os.path.abspath(__file__))
_SITE = os.path.join(_HERE, "site")


class Settings(NamedTuple):
    """What an interpreter of a run reads; the fields are those of the variables of the same name."""

    standins: dict[str, str]
    cpu: str
    attach: bool
    asked: str = ""
    recipe: str = ""


def read(environ: Mapping[str, str]) -> Settings | None:
    """The settings of the run that this interpreter belongs to, None outside of one."""
    if STANDINS not in environ:
        return None
    return Settings(
        json.loads(environ[STANDINS]), environ.get(CPU, ""), bool(environ.get(ATTACH)), environ.get(ASKED, "")
    )


def write(environ: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """A copy of ``environ`` in which a Python starts with our import hook."""
    result = {key: value for key, value in environ.items() if key not in (TOLD, TRUST)}
    result[STANDINS] = json.dumps(settings.standins)
    result[CPU], result[ATTACH] = settings.cpu, "1" if settings.attach else ""
    result[RECIPE], result[ASKED] = settings.recipe, settings.asked
    result[HOME] = os.path.dirname(os.path.dirname(_HERE))
    result["PYTHONPATH"] = os.pathsep.join([_SITE, *_paths(environ)])
    return result


def without_run(environ: Mapping[str, str]) -> dict[str, str]:
    """A copy of ``environ`` without the import hook of a run around this one."""
    result = {key: value for key, value in environ.items() if not key.startswith("APML_RUN_")}
    result["PYTHONPATH"] = os.pathsep.join(_paths(environ))
    return result


def _paths(environ: Mapping[str, str]) -> list[str]:
    entries = environ.get("PYTHONPATH", "").split(os.pathsep)
    return [entry for entry in entries if entry and entry != _SITE]
