"""Runs that are planned in this process and started as `apml run` starts them: without a process of its own each."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

from forking import Done, clean_environment

from apml_plugin.chosen import VARIABLE
from apml_plugin.launch import plan, probe, recipes
from apml_plugin.standins import STANDINS

HOME = Path(__file__).parents[2]
APML = [sys.executable, "-m", "apml_plugin", "run"]
LOSS = "{NAME: APML, reduction: mean}"
MISSING = {name: f"ModuleNotFoundError: No module named {name!r}" for name in STANDINS}


def demo_host(folder: Path) -> Path:
    """A copy of the demo's host there."""
    source = HOME / "apml_plugin" / "studies" / "demo" / "host"
    return Path(shutil.copytree(source, folder, ignore=shutil.ignore_patterns("__pycache__")))


def planned(
    folder: Path, *words: str, loss: str = "", look: bool = False, path: str = "", env: dict[str, str] | None = None,
    **options: bool,
) -> tuple[list[str], dict[str, str]]:  # fmt: skip
    """The command of a run in `folder`, and its environment, as `apml run` would start it.

    options: those of `plan.make`. look: find out which modules are missing; otherwise no stand-in's real module is
    installed. path: in front on PYTHONPATH.
    """
    environ = clean_environment(**(env or {}))
    environ["PYTHONPATH"] = os.pathsep.join([path, environ["PYTHONPATH"]] if path else [environ["PYTHONPATH"]])
    if loss:
        environ[VARIABLE] = loss
    recipes.of.cache_clear()  # of a folder whose files an earlier run had
    if words[0] == "-m":
        words, options = words[1:], {**options, "module": True}
    home = os.getcwd()
    os.chdir(folder)
    try:
        with mock.patch.object(probe, "look", probe.look if look else lambda *_: probe.Probe(dict(MISSING), {}, False)):
            asked = plan.loss_of(words, environ)[1] if options.get("attach", True) else ""
            return plan.process_of(plan.make(words, asked=asked, environ=environ, **options))
    finally:
        os.chdir(home)


def run(folder: Path, *words: str, timeout: float = 120, **options: object) -> Done:
    """How such a run ended."""
    command, environ = planned(folder, *words, **options)  # type: ignore[arg-type]
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=timeout)
    return Done(done.returncode, done.stdout, done.stderr)


def announced(done: Done, start: str) -> int:
    """How many lines of ours begin like this."""
    return sum(line.startswith("[apml] " + start) for line in done.stderr.splitlines())
