"""A host's own command as a child process, with a progress bar that follows its log."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from apml_plugin.errors import HostError

BATCH = re.compile(r"\[Epoch (\d+)/(\d+)\]\[Batch (\d+)/(\d+)\].*?Losses = \[([^\]]*)\]")
OURS = re.compile(r"\[apml\].*|\bapml: .*")  # what the plugin says, without the time stamp before it


def bars(console: Console) -> Progress:
    """How progress looks throughout the demo. Leaves one line behind each finished step."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[note]}"),
        console=console,
    )


def follow(command: Sequence[str], folder: Path, log: Path, what: str, console: Console) -> tuple[float, list[str]]:
    """Runs a command in ``folder``; all it prints goes to ``log``.

    Returns its wall seconds and the lines in which the plugin says what it did. Raises HostError with the end of the
    log if it fails. Interrupting this process ends the child too.
    """
    environ = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while waiting starve their neighbours
    begin = time.monotonic()
    tail: list[str] = []
    ours: list[str] = []
    with bars(console) as progress, log.open("w") as sink:
        task = progress.add_task(what, total=None, note="starting")
        child = subprocess.Popen(
            command,
            cwd=folder,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        try:
            for line in child.stdout or ():
                sink.write(line)
                tail = [*tail[-14:], line.rstrip()]
                if found := OURS.search(line):
                    ours.append(found[0].strip())
                _advance(progress, task, line)
            code = child.wait()
        finally:
            if child.poll() is None:
                child.terminate()
                child.wait()
        if code:
            raise HostError(f"{what} failed (exit code {code}); log: {log}\n  " + "\n  ".join(tail))
        progress.update(task, total=1, completed=1, note="")
    return time.monotonic() - begin, ours


def _advance(progress: Progress, task: object, line: str) -> None:
    if batch := BATCH.search(line):
        epoch, epochs, step, steps = (int(batch[k]) for k in range(1, 5))
        losses = batch[5].replace("'", "")
        progress.update(task, total=epochs * steps, completed=epoch * steps + step, note=f"loss x 1000: {losses}")  # type: ignore[arg-type]


def python(*words: str) -> list[str]:
    """A command line for the Python that runs this."""
    return [sys.executable, *words]
