"""Finds out which of a host's modules really import, in a process of its own.

:func:`look` starts that process, which runs this file: ``python probe.py FOLDER NEEDS``. There it is standard library
only, so that the real modules meet an interpreter like the host's.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Collection, Mapping
from typing import NamedTuple

TIMEOUT = 300.0
"""Seconds that one such process may take: importing open3d from a network disk is slow, not endless."""

_MARK = "apml-probe "
_CUDA = "torch.cuda"


class Probe(NamedTuple):
    """What was found."""

    standins: dict[str, str]
    """Each stand-in that is needed -> why."""
    broken: dict[str, str]
    """Each package that is installed but does not import, so that no stand-in takes its place -> why."""
    cuda: bool
    """Whether PyTorch sees a CUDA device."""


def look(folder: str, environ: Mapping[str, str], names: Collection[str] | None = None) -> Probe:
    """What needs a stand-in for a script in ``folder``. names: of the stand-ins to ask about, by default all.

    A stand-in hides no package that is installed. What lies in a site-packages is used even if it does not import: the
    host gets its error, and the import hook says where it lies. The one exception is what was compiled for CUDA where
    there is no CUDA device. Sources beside the host that do not import, or a folder that happens to have the name, were
    not built yet: they count as missing. A file of the host that imports is what the host means.

    Another process imports the real modules: one that crashes the interpreter, or leaves half of itself behind,
    does no harm here.
    """
    from apml_plugin.standins import STANDINS

    names = STANDINS if names is None else names
    errors: dict[str, str] = {}
    places: dict[str, str] = {}
    left = {name: STANDINS[name].needs for name in names}
    if not _torch_is_cpu_only():  # there nothing needs asking, and two seconds are saved
        left = {_CUDA: {}, **left}
    while left:
        answers, ending = _run(left, folder, environ)
        for answer in answers:
            (errors if "error" in answer else places)[answer["name"]] = answer.get("error", answer.get("place", ""))
        left = {name: needs for name, needs in left.items() if name not in errors}
        if left:  # the process died while importing the first one left
            first = next(iter(left))
            errors[first] = f"importing it {ending}"
            del left[first]
    found = Probe({}, {}, errors.get(_CUDA) == "")
    for name in names:
        error, place = errors[name], places.get(name, "")
        if "site-packages" not in place and "dist-packages" not in place:
            # A file of the host that imports is what the host means, whatever else has its name.
            if error and f" at {place} has no " not in error:
                found.standins[name] = error
        elif STANDINS[name].cuda and not found.cuda:
            found.standins[name] = f"the one at {place} is compiled for CUDA, and PyTorch sees no CUDA device"
        elif error:
            found.broken[name] = f"{place}: {error}"
    return found


def look_again(name: str, why: str) -> str:
    """``why`` a stand-in is needed for ``name``, asked again because the host has put more on ``sys.path`` since."""
    if why != f"ModuleNotFoundError: No module named {name!r}":
        return why
    environ = {key: value for key, value in os.environ.items() if not key.startswith("APML_RUN_")}
    environ["PYTHONPATH"] = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    return look(sys.path[0] or os.getcwd(), environ, [name]).standins.get(name, "")


def _run(
    needs: Mapping[str, Mapping[str, tuple[str, ...]]], folder: str, environ: Mapping[str, str]
) -> tuple[list[dict[str, str]], str]:
    """The answers of a process that imports the modules, and how it ended."""
    command = [sys.executable, os.path.abspath(__file__), folder, json.dumps(needs)]
    try:
        done = subprocess.run(
            command, env=dict(environ), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT
        )
        text, ending = done.stdout, f"ended Python with exit code {done.returncode}"
    except subprocess.TimeoutExpired as error:
        output = error.stdout or ""
        text, ending = output.decode() if isinstance(output, bytes) else output, f"took over {TIMEOUT:g} s"
    return [json.loads(line[len(_MARK) :]) for line in text.splitlines() if line.startswith(_MARK)], ending


def _torch_is_cpu_only() -> bool:
    """Reads torch/version.py, which says what the build has, without importing torch."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.origin:
        return True
    values: dict[str, object] = {}
    try:
        with open(os.path.join(os.path.dirname(spec.origin), "version.py"), encoding="utf-8") as file:
            exec(compile(file.read(), file.name, "exec"), values)
    except Exception:
        return False
    return values.get("cuda") is None and values.get("hip") is None


def _error(needs: Mapping[str, list[str]]) -> str:
    """The first thing that is wrong with the modules and their attributes, in one short line; "" if nothing."""
    for name, attributes in needs.items():
        try:
            module = importlib.import_module(name)
        except BaseException as error:  # a broken package may well call sys.exit
            return _line(f"{type(error).__name__}: {error}")
        for attribute in attributes:
            if not hasattr(module, attribute):
                return _line(f"{name} at {getattr(module, '__file__', None) or 'a bare folder'} has no {attribute}")
    return ""


def _cuda_error() -> str:
    try:
        return "" if importlib.import_module("torch").cuda.is_available() else "no CUDA device"
    except BaseException as error:
        return _line(f"{type(error).__name__}: {error}")


def _place(name: str) -> str:
    """The file that importing ``name`` would run; "" for none, and for a folder of sources."""
    try:
        spec = importlib.util.find_spec(name)
    except Exception:
        return ""
    return (spec.origin or "") if spec is not None else ""


def _line(text: str) -> str:
    """One line of at most 200 characters."""
    line = " ".join(text.split())
    return line if len(line) <= 200 else line[:197] + "..."


if __name__ == "__main__":
    # As if the host's script ran: its folder stands where Python puts the folder of a script.
    sys.path[0] = sys.argv[1]
    for name, needs in json.loads(sys.argv[2]).items():
        if name != _CUDA:  # printed before the import, which may end the interpreter
            print("\n" + _MARK + json.dumps({"name": name, "place": _place(name)}), flush=True)
        error = _cuda_error() if name == _CUDA else _error(needs)
        print("\n" + _MARK + json.dumps({"name": name, "error": error}), flush=True)
