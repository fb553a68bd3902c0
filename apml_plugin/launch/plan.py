"""What ``apml run`` executes, and in which environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from apml_plugin.chosen import VARIABLE
from apml_plugin.errors import HostError
from apml_plugin.files.sources import root_of
from apml_plugin.hosts import guard
from apml_plugin.launch import environment, probe, recipes, supervise
from apml_plugin.patching import journal


class Plan(NamedTuple):
    """A command and its environment."""

    command: list[str]
    environ: dict[str, str]
    settings: environment.Settings
    lines: recipes.Lines


def make(
    words: Sequence[str],
    module: bool = False,
    cpu: bool = False,
    cpu_mode: bool = True,
    standins: bool = True,
    attach: bool = True,
    asked: str = "",
    environ: Mapping[str, str] | None = None,
) -> Plan:
    """Plans a run of ``words``: a script (or a module, or a command such as torchrun) and its arguments.

    Args:
        module: the first word is a module, as after ``python -m``.
        cpu: run on the CPU even if there is a CUDA device.
        cpu_mode: take CUDA calls to the CPU if there is no CUDA device.
        standins: replace modules that do not import.
        attach: put the recipe of the host into its modules.
        asked: which loss was asked for, in words; empty if none was.
        environ: the environment to start from, by default this process's.

    Raises:
        HostError: the first word is neither a Python file nor a command, or ``cpu`` meets ``cpu_mode=False``.
        PatchError: an interrupted patch of the clone cannot be cleaned up.
    """
    if cpu and not cpu_mode:
        raise HostError("--cpu and --no-cpu-mode contradict each other: give one of them")
    base = dict(os.environ if environ is None else environ)
    command, folder = _command(words, module)
    if clone := journal.find(folder):
        journal.recover(clone)
    reason = "--cpu was given" if cpu else ""
    if cpu:
        base["CUDA_VISIBLE_DEVICES"] = ""
    absent, cuda = probe.missing(folder, _clean(base))
    if not cpu and cpu_mode and not cuda:
        reason = "PyTorch sees no CUDA device"
    lines = recipes.of(root_of(folder)) if attach else recipes.Lines("", {}, [])
    settings = environment.Settings(absent if standins else {}, reason, attach, asked, lines.write() if attach else "")
    return Plan(command, environment.write(base, settings), settings, lines)


def execute(plan: Plan) -> int:
    """Becomes the planned command, or, where a loss was asked for, a small process that waits for it.

    Returns, with the exit code, only where a process cannot be replaced.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    command, environ = plan.command, plan.environ
    if plan.settings.asked:
        environ = {**environ, guard.FOLDER: tempfile.mkdtemp(prefix="apml-run-")}
        explicit = "1" if environ.get(VARIABLE, "").strip() else ""
        command = [sys.executable, "-I", "-S", supervise.__file__, environ[guard.FOLDER], explicit, *command]
    if os.name == "nt":  # exec there returns to the shell at once and loses the exit code
        return subprocess.call(command, env=environ)
    return os.execvpe(command[0], command, environ)


def _command(words: Sequence[str], module: bool) -> tuple[list[str], str]:
    """The command line, and the folder that the script's imports start from."""
    if not words:
        raise HostError("nothing to run: give a script, for example `apml run main.py --config my.yaml`")
    first, *rest = words
    if module:
        return [sys.executable, "-m", first, *rest], os.getcwd()
    if os.path.exists(first) and (first.endswith((".py", ".pyc")) or os.path.isdir(first)):
        return [sys.executable, first, *rest], _folder_of(first)
    # The Python that runs us may live in an environment that is not activated: its own commands come first.
    found = shutil.which(first, path=os.path.dirname(sys.executable)) or shutil.which(first)
    if found is None and os.path.isfile(first):
        return [sys.executable, first, *rest], _folder_of(first)
    if found is None:
        raise HostError(f"cannot run {first!r}: no such Python file here ({os.getcwd()}) and no such command on PATH")
    scripts = [word for word in rest if word.endswith(".py") and os.path.isfile(word)]
    return [found, *rest], _folder_of(scripts[0]) if scripts else os.getcwd()


def _folder_of(script: str) -> str:
    real = os.path.realpath(script)
    return real if os.path.isdir(real) else os.path.dirname(real)


def _clean(environ: Mapping[str, str]) -> dict[str, str]:
    """Without the hooks of a run around this one: the probe must meet the real modules."""
    result = {key: value for key, value in environ.items() if not key.startswith("APML_RUN_")}
    site = os.path.join(os.path.dirname(os.path.abspath(environment.__file__)), "site")
    paths = [entry for entry in result.get("PYTHONPATH", "").split(os.pathsep) if entry and entry != site]
    result["PYTHONPATH"] = os.pathsep.join(paths)
    return result
