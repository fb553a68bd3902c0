"""The parent of a run that asked for a loss: ``python -I -S supervise.py FOLDER EXPLICIT COMMAND...``.

It waits for the command, passes signals on, and ends as the command ended. Where the command ended well but no
process of it trained with the loss, it says so and ends with 1. Standard library only, and none of this package: it
must stay small beside a training that runs for days.
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
        if -code not in (signal.SIGKILL, signal.SIGSTOP):  # these cannot be handled, and are not
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    if code == 0 and "stopped" in marks:
        print("[apml] stopped: a process of this run was stopped, see above", file=sys.stderr)
        return 1
    if code == 0 and "trained" not in marks and (explicit or "carried" not in marks):
        if "carried" not in marks:
            why = (
                "no Python process of this run carried the plugin (a script that resets PYTHONPATH, `python -E`, or "
                "another Python): if something was trained, then with the host's own loss"
            )
        else:
            why = (
                "no process of this run differentiated a value of that loss: nothing was trained with it. For an "
                "evaluation, leave out --loss"
            )
        print(f"[apml] stopped: a loss was asked for, but {why}", file=sys.stderr)
        return 1
    return code


def _end_with_parent() -> None:
    """Where Linux runs: a training does not outlive a parent that was killed outright."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
