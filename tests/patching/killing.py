"""Work on a clone's files, killed before every line of the code that writes them, in processes of their own.

Run as a script, because a process that has PyTorch loaded forks slowly.
"""

from __future__ import annotations

import itertools
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

State = dict[str, bytes]


def killed_writing(plan: Any) -> list[State]:
    """What is on disk after `write(plan)` was killed, each different state once; the clone is left as it was."""
    return _ask("write", plan.root, [plan])


def killed_recovering(root: Path, states: list[State]) -> list[State]:
    """The same for cleaning up each of these states."""
    return _ask("recover", root, states)


def snapshot(root: Path) -> State:
    """All files but those of Python's cache and git's folder."""
    found = (path for path in sorted(root.rglob("*")) if not {"__pycache__", ".git"} & set(path.parts))
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found if path.is_file()}


def restore(root: Path, state: State) -> None:
    for file in snapshot(root).keys() - state.keys():
        (root / file).unlink()
    for file, data in state.items():
        (root / file).write_bytes(data)


def _ask(what: str, root: Path, items: list[Any]) -> list[State]:
    home = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, __file__], input=pickle.dumps((what, root, items)), capture_output=True,
        env={**os.environ, "PYTHONPATH": home}, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    found: list[State] = pickle.loads(done.stdout)
    return found


def _states(root: Path, start: State, work: Callable[[], Any]) -> list[State]:
    seen: list[State] = []
    restore(root, start)
    for line in itertools.count(1):
        came_through = not _killed(line, work)
        state = snapshot(root)
        if state not in seen:
            seen.append(state)
        if state != start:
            restore(root, start)
        if came_through:
            assert line > 20, "the code that writes was not followed"
            return seen
    raise AssertionError


def _killed(line: int, work: Callable[[], Any]) -> bool:
    """Runs `work` in a process killed before the `line`-th line of the writing code; False if it came through."""
    from apml_plugin.patching import files, journal

    child = os.fork()
    if child == 0:
        left = itertools.count(line - 1, -1)

        def trace(frame: FrameType, event: str, arg: Any) -> Any:
            if frame.f_code.co_filename not in (files.__file__, journal.__file__):
                return None
            if event == "line" and next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return trace

        try:
            sys.settrace(trace)
            work()
            os._exit(0)
        except BaseException:
            os._exit(9)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


if __name__ == "__main__":
    from apml_plugin.patching import write
    from apml_plugin.patching.journal import recover

    os.fsync = lambda handle: None  # a kill, unlike a power failure, loses nothing that was written; it is slow
    what, root, items = pickle.loads(sys.stdin.buffer.read())
    found = []
    for item in items:
        if what == "write":
            found += _states(root, snapshot(root), lambda plan=item: write(plan))
        else:
            found += _states(root, item, lambda: recover(root))
    sys.stdout.buffer.write(pickle.dumps(found))
