"""Python processes that start with torch already imported: many small scripts cost one import, not one each.

`python forking.py MODULE...` imports the modules once, then forks a child for every job it reads from stdin. A child
runs its script as `__main__`, or the `apml` command, and ends as an interpreter does, but for the second that tearing
down torch's modules takes.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

HOME = Path(__file__).parents[1]
TIMEOUT = 120


class Done(NamedTuple):
    """How a process ended. returncode: as subprocess says it, negative for a signal."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def said(self) -> str:
        return f"exit code {self.returncode}\n{self.stdout[-3000:]}\n{self.stderr[-6000:]}"


def clean_environment(**env: str) -> dict[str, str]:
    """This process's environment without what a run of ours or a launcher puts in; `python` is this interpreter."""
    foreign = ("APML_", "PYTHON", "RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_", "TORCHELASTIC", "GROUP_RANK")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
    kept["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), kept.get("PATH", os.defpath)])
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HOME), **env}


class Forking:
    """A process that forks: `Forking("torch")(words, cwd)` is `python words` there, in a tenth of the time.

    command: the words are those of `apml` instead. under: words before `python`, such as those of `apml run`; the
    children then keep the environment they find, and what a call gives is added to it.
    """

    def __init__(self, folder: Path, *modules: str, command: bool = False, under: Sequence[str] = ()) -> None:
        self.folder, self.command, self.inherits = folder, command, bool(under)
        self.process = subprocess.Popen(
            [*under, sys.executable, __file__, *modules],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=clean_environment(),
        )  # fmt: skip

    def __call__(self, words: Sequence[str], cwd: Path, **env: str) -> Done:
        out, err = self.folder / "stdout", self.folder / "stderr"
        job = {
            "words": list(words), "cwd": str(cwd), "env": env if self.inherits else clean_environment(**env),
            "inherits": self.inherits, "command": self.command, "stdout": str(out), "stderr": str(err),
        }  # fmt: skip
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        code = int(self.process.stdout.readline())
        return Done(code, out.read_text(errors="replace"), err.read_text(errors="replace"))

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def _serve() -> dict[str, Any] | None:
    """Forks a child per line; returns the job in a child, None in the parent at the end of the jobs."""
    for line in iter(sys.stdin.readline, ""):
        child = os.fork()
        if child == 0:
            return json.loads(line)
        print(_wait(child), flush=True)
    return None


def _wait(child: int) -> int:
    """The exit code of a child, which is killed with all it started when it takes too long."""
    until = time.monotonic() + TIMEOUT
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > until:
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.01)
    return os.waitstatus_to_exitcode(ended[1])


def _become(job: Mapping[str, Any]) -> None:
    """The child: its own folder, environment and files, then its script."""
    os.setsid()
    for number, file, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, job["stdout"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        (2, job["stderr"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    ):
        opened = os.open(file, flags, 0o644)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    os.chdir(job["cwd"])
    if job["inherits"]:
        os.environ.update(job["env"])
    else:
        os.environ.clear()
        os.environ.update(job["env"])
        given = job["env"]["PYTHONPATH"].split(os.pathsep)
        sys.path[1:] = [*given, *(entry for entry in sys.path[1:] if entry not in given)]
    words = job["words"]
    if job["command"]:
        from apml_plugin.cli import main

        sys.path[0], sys.argv[:] = job["cwd"], ["apml", *words]
        sys.exit(main(words))
    if words[0] == "-m":
        sys.path[0], sys.argv[:] = job["cwd"], words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.path[0], sys.argv[:] = os.path.dirname(os.path.realpath(words[0])), list(words)
        runpy.run_path(words[0], run_name="__main__")


def _exit_code(job: Mapping[str, Any]) -> int:
    try:
        _become(job)
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            return ended.code or 0
        print(ended.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _end(code: int) -> None:
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code & 0xFF)


if __name__ == "__main__":
    for module in sys.argv[1:]:
        importlib.import_module(module)
    received = _serve()
    if received is not None:
        _end(_exit_code(received))
