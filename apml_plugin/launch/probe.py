"""Finds out which of a host's modules really import, in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

from apml_plugin.launch import probe_child
from apml_plugin.standins import PROBES, STANDINS

TIMEOUT = 300.0
"""Seconds one probing process may take: importing open3d from a network disk is slow, not endless."""


def missing(
    folder: str, environ: Mapping[str, str], names: Sequence[str] = tuple(STANDINS)
) -> tuple[dict[str, str], bool]:
    """What needs a stand-in for a script that lies in ``folder``, and whether PyTorch sees a CUDA device.

    Returns ``({stand-in: why}, cuda)``. A stand-in hides no package that is there. What was installed (it lies in a
    site-packages) is used even if it does not import: the host gets its error, and the hooks say where it lies. The
    one exception is what was compiled for CUDA where there is no CUDA device. Sources beside the host that do not
    import, or a folder that merely has the name, were not built yet: they count as missing. A file of the host's
    own that imports is the host's.

    Another process imports the real modules: one that crashes the interpreter, or leaves half of itself behind,
    does no harm here.
    """
    errors: dict[str, str] = {}
    places: dict[str, str] = {}
    left = list(names)
    # Without CUDA in PyTorch itself there is nothing to ask, and two seconds are saved.
    if not _torch_is_cpu_only():
        left.insert(0, "torch.cuda")
    while left:
        lines, ending = _run(left, folder, environ)
        for line in lines:
            (errors if "error" in line else places)[line["name"]] = line.get("error", line.get("place", ""))
        left = [name for name in left if name not in errors]
        if left:  # it died while importing the first one left
            errors[left.pop(0)] = f"importing it {ending}"
    cuda = errors.get("torch.cuda") == ""
    whys = {name: _why(name, errors[name], places.get(name, ""), cuda) for name in names}
    return {name: why for name, why in whys.items() if why}, cuda


def found_since(name: str, why: str) -> str:
    """``why`` a stand-in is needed for ``name``, asked again if the host has put more on ``sys.path`` since."""
    if why != f"ModuleNotFoundError: No module named {name!r}":
        return why
    environ = {key: value for key, value in os.environ.items() if not key.startswith("APML_RUN_")}
    environ["PYTHONPATH"] = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    return missing(sys.path[0] or os.getcwd(), environ, [name])[0].get(name, "")


def _why(name: str, error: str, place: str, cuda: bool) -> str:
    if "site-packages" not in place and "dist-packages" not in place:
        # A file of the host's own that imports is what the host means, whatever else has its name.
        return "" if f" at {place} has no " in error else error
    if STANDINS[name].cuda and not cuda:
        return f"the one at {place} is compiled for CUDA, and PyTorch sees no CUDA device"
    return ""


def _run(names: list[str], folder: str, environ: Mapping[str, str]) -> tuple[list[dict[str, str]], str]:
    command = [sys.executable, probe_child.__file__, folder, json.dumps(names), json.dumps(PROBES)]
    try:
        done = subprocess.run(
            command, env=dict(environ), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT
        )
    except subprocess.TimeoutExpired as error:
        text = error.stdout or ""
        return _lines(text.decode() if isinstance(text, bytes) else text), f"took over {TIMEOUT:g} s"
    return _lines(done.stdout), f"ended Python with exit code {done.returncode}"


def _lines(text: str) -> list[dict[str, str]]:
    mark = probe_child.MARK
    return [json.loads(line[len(mark) :]) for line in text.splitlines() if line.startswith(mark)]


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
