"""The parent of a run that asked for a loss: ``python -I -S supervise.py FOLDER EXPLICIT COMMAND...``.

It waits for the command, passes signals on, and ends as the command ended. If the command succeeded but none of its
processes trained with the loss, it reports that and ends with 1. It uses the standard library only, and nothing of
this package, to stay small beside a training that runs for days.
"""

import os
import shutil
import signal
import subprocess
import sys

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
    code = child.wait()
    marks = set(os.listdir(folder))
    shutil.rmtree(folder, ignore_errors=True)
    if code < 0:
        if -code not in (signal.SIGKILL, signal.SIGSTOP):  # these two cannot have handlers
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    failure = failure_of(marks, explicit) if code == 0 else ""
    if failure:
        print(f"[apml] stopped: {failure}", file=sys.stderr)
    return 1 if failure else code


def failure_of(marks: set[str], explicit: str) -> str:
    """Why a run that asked for a loss failed, although its command ended with 0; empty if it did not.

    marks: what its processes left behind (:mod:`apml_plugin.hosts.guard`). explicit: not empty if the loss was asked
    for on the command line, so that a run whose processes all train nothing is no evaluation.
    """
    if "stopped" in marks:
        return "a process of this run was stopped, see above"
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


def _end_with_parent() -> None:
    """On Linux, a training does not outlive a parent that was killed."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
