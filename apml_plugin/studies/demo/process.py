"""A host's own command as a child process, with a progress bar that follows its log."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from apml_plugin.errors import HostError
from apml_plugin.studies.reports import bars

BATCH = re.compile(r"\[Epoch (\d+)/(\d+)\]\[Batch (\d+)/(\d+)\].*?Losses = \[([^\]]*)\]")
OURS = re.compile(r"\[apml\].*|\bapml: .*")  # lines of the plugin, without the time stamp before them


def python(*words: str) -> list[str]:
    """A command line for the Python that runs this."""
    return [sys.executable, *words]


def follow(command: Sequence[str], folder: Path, log: Path, what: str, console: Console) -> tuple[float, list[str]]:
    """Runs a command in ``folder`` and writes its output to ``log``.

    Returns its wall seconds, and the lines of the plugin. Raises HostError with the end of the log if it fails.
    Interrupting this process ends the child too.
    """
    environ = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while waiting take time from others
    begin = time.monotonic()
    lines: list[str] = []
    with bars(console) as progress, log.open("w") as sink:
        task = progress.add_task(what, total=None, note="starting")
        pipe: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        child = subprocess.Popen(command, cwd=folder, env=environ, text=True, errors="replace", **pipe)
        try:
            for line in child.stdout or ():
                sink.write(line)
                lines.append(line.rstrip())
                if batch := BATCH.search(line):
                    epoch, epochs, step, steps = (int(batch[k]) for k in range(1, 5))
                    note = f"loss x 1000: {batch[5].replace(chr(39), '')}"
                    progress.update(task, total=epochs * steps, completed=epoch * steps + step, note=note)
            code = child.wait()
        finally:
            if child.poll() is None:
                child.terminate()
                child.wait()
        if code:
            raise HostError(f"{what} failed (exit code {code}); log: {log}\n  " + "\n  ".join(lines[-15:]))
        progress.update(task, total=1, completed=1, note="")
    ours = [match[0].strip() for line in lines if (match := OURS.search(line))]
    return time.monotonic() - begin, ours
