"""What ``apml run`` executes, in which environment, and with which loss."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from apml_plugin.chosen import VARIABLE, parse
from apml_plugin.errors import AmbiguousError, ApmlError, HostError
from apml_plugin.files.sources import root_of
from apml_plugin.hosts import guard
from apml_plugin.hosts.base import check_config, read_yaml
from apml_plugin.hosts.csi2pointcloud import CONFIG
from apml_plugin.launch import environment, probe, recipes, supervise


class Plan(NamedTuple):
    """A command and its environment. broken: installed packages that do not import (:class:`.probe.Probe`)."""

    command: list[str]
    environ: dict[str, str]
    settings: environment.Settings
    lines: recipes.Lines
    broken: Mapping[str, str] = {}


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
    """Plans a run of ``words``: a script, a module or a command such as torchrun, and its arguments.

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
        AmbiguousError: a loss was asked for, and two files could be what trains.
    """
    if cpu and not cpu_mode:
        raise HostError("--cpu and --no-cpu-mode contradict each other: give one of them")
    base = dict(os.environ if environ is None else environ)
    command, folder = _command(words, module)
    reason = "--cpu was given" if cpu else ""
    if cpu:
        base["CUDA_VISIBLE_DEVICES"] = ""
    found = probe.look(folder, environment.without_run(base))
    if not cpu and cpu_mode and not found.cuda:
        reason = "PyTorch sees no CUDA device"
    lines = recipes.of(root_of(folder)) if attach else recipes.Lines("", {}, [])
    if asked and lines.unclear:
        raise AmbiguousError(lines.unclear)
    recipe = lines.write() if attach else ""
    settings = environment.Settings(found.standins if standins else {}, reason, attach, asked, recipe)
    return Plan(command, environment.write(base, settings), settings, lines, found.broken)


def execute(plan: Plan) -> int:
    """Becomes the process of :func:`process_of`. Returns, with the exit code, only where none can be replaced."""
    sys.stdout.flush()
    sys.stderr.flush()
    command, environ = process_of(plan)
    if os.name == "nt":  # exec there returns to the shell at once and loses the exit code
        return subprocess.call(command, env=environ)
    return os.execvpe(command[0], command, environ)


def process_of(plan: Plan) -> tuple[list[str], dict[str, str]]:
    """The planned command and its environment; with a small parent that waits for it where a loss was asked for."""
    if not plan.settings.asked:
        return plan.command, plan.environ
    environ = {**plan.environ, guard.FOLDER: tempfile.mkdtemp(prefix="apml-run-")}
    explicit = "1" if environ.get(VARIABLE, "").strip() else ""
    parent = [sys.executable, "-I", "-S", supervise.__file__, environ[guard.FOLDER], explicit]
    return [*parent, *plan.command], environ


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


def loss_of(words: Sequence[str], environ: Mapping[str, str]) -> tuple[str, str]:
    """The loss that a run asks for, looked at before it starts: a misspelt one is one line now, not a traceback later.

    words: as for :func:`make`. Returns what the run trains with, and who asked for it, in words: as far as
    ``APML_LOSS`` says, or the YAML after ``--config`` or in ``APML_CONFIG``. Both are empty where none of these is
    given; who asked is empty where it is the host's own loss.

    Raises what building the loss raises; for a YAML's, HostError with the file's name. Raises AmbiguousError where a
    guess could train with another loss, such as a `loss:` that is given twice. The YAML of a host that reads its
    `loss:` itself is left to that host.
    """
    if environ.get(VARIABLE, "").strip():
        from apml_plugin.registry import build_loss, describe

        text = describe(build_loss(parse(environ[VARIABLE])))
        return f"{text} ({VARIABLE})", f"{VARIABLE} (apml run --loss) asks for {text}"
    path = config_of(words, environ)
    if path is None:
        return "", ""
    try:
        config = read_yaml(path)
    except AmbiguousError:
        raise
    except HostError:  # the script reports it in its own words
        return "", ""
    parts = (config, config.get("model"))
    if not any(isinstance(part, Mapping) and {"loss", "loss_opts"} & _given(part) for part in parts):
        return f"the host's own (no loss: in {path})", ""
    try:
        found = check_config(path, near=Path.cwd())  # a host is run from its own folder; its YAML may lie anywhere
    except AmbiguousError:
        raise
    except ApmlError:
        return _by_name(parts, path)
    if found.host is None or (found.error and not found.model):
        return _by_name(parts, path)
    if found.error:
        raise HostError(f"{path}: {found.error}")
    if not found.stages:
        return f"the host's own ({found.found_at})" if found.found_at else "the host's own", ""
    stages = ", ".join(f"{', '.join(names)}: {text}" for names, text in found.grouped)
    return f"{stages} ({found.found_at} in {path})", f"{found.found_at} in {path} asks for {stages}"


def _by_name(parts: tuple[object, ...], path: Path) -> tuple[str, str]:
    """What `loss_of` returns for a codebase of which we do not know how it reads its YAML.

    Its `loss:` is its own business (a codebase may have its own "EMD"), unless it names APML, which only we have.
    """
    given = [part["loss"] for part in parts if isinstance(part, Mapping) and "loss" in part]
    given = [value for value in given if re.search(r"\b(APML\w*|AdaptiveProbabilisticMatchingLoss)\b", str(value))]
    if given:
        from apml_plugin.registry import looks_like_loss  # imports torch

    for value in given:
        if looks_like_loss(value):
            how = "if this codebase does not read it, use apml run --loss"
            return f"{value!r} ({path})", f"loss: in {path} asks for {value!r} ({how})"
    return "", ""


def config_of(words: Sequence[str], environ: Mapping[str, str]) -> Path | None:
    """The YAML that a script's arguments name after ``--config``, else the one in ``APML_CONFIG``, if it exists."""
    named = [(*word.partition("=")[::2], following) for word, following in zip(words, [*words[1:], ""], strict=True)]
    given = [value or following for option, value, following in named if option == "--config"]
    for path in map(Path, filter(None, [*given, environ.get(CONFIG)])):
        if path.suffix in (".yaml", ".yml") and path.is_file():
            return path
    return None


def _given(part: Mapping[str, object]) -> set[str]:
    return {key for key, value in part.items() if value is not None}
