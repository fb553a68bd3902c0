"""The parent of a run that asked for a loss: ``python -I -S supervise.py FOLDER EXPLICIT COMMAND...``.

It waits for the command, passes signals on, and ends as the command ended. If the command succeeded but none of its
processes trained with the loss, or one of them loaded PyTorch without the plugin, it reports that and ends with 1. It
uses the standard library only, and nothing of this package, to stay small beside a training that runs for days.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys

EVERY = 0.5
"""Seconds between two looks at the processes of the run; importing PyTorch alone takes longer."""

PASSED = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGQUIT")


def main(folder: str, explicit: str, command: list[str]) -> int:
    passed = [getattr(signal, name) for name in PASSED if hasattr(signal, name)]
    # Ctrl-C reaches the child by itself: both belong to the terminal's foreground group.
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in passed:
        signal.signal(number, lambda number, frame: child.send_signal(number))

    def prepare() -> None:
        signal.signal(signal.SIGINT, interrupt)
        _end_with_parent()

    child = subprocess.Popen(command, preexec_fn=prepare if os.name == "posix" else None)
    watch = Watch(child.pid, folder)
    if sys.platform == "linux":
        signal.signal(signal.SIGALRM, lambda number, frame: watch.look())
        signal.setitimer(signal.ITIMER_REAL, EVERY, EVERY)
    code = child.wait()
    if sys.platform == "linux":
        signal.setitimer(signal.ITIMER_REAL, 0)
    marks = set(os.listdir(folder))
    shutil.rmtree(folder, ignore_errors=True)
    if code < 0:
        if -code not in (signal.SIGKILL, signal.SIGSTOP):  # these two cannot have handlers
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    failure = failure_of(marks, explicit, watch.strays) if code == 0 else ""
    if failure:
        print(f"[apml] stopped: {failure}", file=sys.stderr)
    return 1 if failure else code


def failure_of(marks: set[str], explicit: str, strays: dict[int, str]) -> str:
    """Why a run that asked for a loss failed, although its command ended with 0; empty if it did not.

    marks: what its processes left behind (:mod:`apml_plugin.hosts.guard`). explicit: not empty if the loss was asked
    for on the command line, so that a run whose processes all train nothing is no evaluation. strays: the processes
    that loaded PyTorch without the plugin, with their command lines.
    """
    if "stopped" in marks:
        return "a process of this run was stopped, see above"
    if strays:
        commands = "; ".join(strays.values())
        return (
            f"a loss was asked for, but PyTorch was loaded without the plugin by: {commands}. If that trained, then "
            "with the host's own loss (a script that resets PYTHONPATH, `python -E`, or another Python)"
        )
    if "trained" in marks or ("carried" in marks and not explicit):
        return ""
    if "carried" in marks:
        return (
            "a loss was asked for, but no process of this run differentiated a value of that loss: nothing was trained "
            "with it. For an evaluation, leave out --loss"
        )
    return (
        "a loss was asked for, but no Python process of this run carried the plugin (a script that resets PYTHONPATH, "
        "`python -E`, or another Python): if something was trained, then with the host's own loss"
    )


class Watch:
    """Finds the processes below `root` that load PyTorch without the plugin. Linux only.

    Attributes:
        carrying: those that carry it. They keep a file in `folder` open (:mod:`apml_plugin.hosts.guard`).
        suspects: those that did not at the last look. A process that is about to become another program may have
            closed its files already, so one look is not enough.
        strays: those that did not at two looks, with their command lines.
    """

    def __init__(self, root: int, folder: str) -> None:
        self.root, self.folder = root, folder
        self.carrying: set[int] = set()
        self.suspects: set[int] = set()
        self.strays: dict[int, str] = {}

    def look(self) -> None:
        below, suspects = [self.root], set()
        for pid in below:
            here = f"/proc/{pid}"
            with contextlib.suppress(OSError):  # it has ended, or belongs to another user
                for thread in os.listdir(f"{here}/task"):
                    below += map(int, _read(f"{here}/task/{thread}/children").split())
                # The plugin comes before PyTorch, so this order cannot meet a process between the two.
                if pid in self.carrying or b"/libtorch" not in _read(f"{here}/maps"):
                    continue
                if any(_target(f"{here}/fd/{number}").startswith(self.folder) for number in os.listdir(f"{here}/fd")):
                    self.carrying.add(pid)
                elif pid in self.suspects:
                    self.strays[pid] = _read(f"{here}/cmdline").replace(b"\0", b" ").decode(errors="replace").strip()
                suspects.add(pid)
        self.suspects = suspects


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _target(link: str) -> str:
    try:
        return os.readlink(link)
    except OSError:  # closed since
        return ""


def _end_with_parent() -> None:
    """On Linux, a training does not outlive a parent that was killed."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
