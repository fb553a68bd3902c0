"""Finds out which of a host's modules really import, in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping

from apml_plugin.launch import probe_child
from apml_plugin.standins import PROBES

TIMEOUT = 300.0
"""Seconds one probing process may take: importing open3d from a network disk is slow, not endless."""


def missing(folder: str, environ: Mapping[str, str]) -> tuple[dict[str, str], bool]:
    """What does not import for a script that lies in ``folder``, and whether PyTorch sees a CUDA device.

    Returns ``({stand-in: error of the real import}, cuda)``. Another process imports the real modules: a module
    that crashes the interpreter, or leaves half of itself behind, then counts as missing and does no harm here.
    """
    answers: dict[str, str] = {}
    cuda = False
    left = [name for name in PROBES if name not in answers]
    # Without CUDA in PyTorch itself there is nothing to ask, and two seconds are saved.
    ask_cuda = not _torch_is_cpu_only()
    while left or ask_cuda:
        names = [*(["torch.cuda"] if ask_cuda else []), *left]
        lines, ending = _run(names, folder, environ)
        for line in lines:
            name, error = line["name"], line["error"]
            if name == "torch.cuda":
                cuda, ask_cuda = error == "", False
            else:
                answers[name] = error
        left = [name for name in left if name not in answers]
        if ask_cuda:
            ask_cuda = False
        elif left:  # it died while importing the first one left
            answers[left.pop(0)] = f"importing it {ending}"
    return {name: answers[name] for name in PROBES if answers[name]}, cuda


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
