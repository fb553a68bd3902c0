"""One line on stderr per announcement and run. Standard library only."""

from __future__ import annotations

import os
import sys

from apml_plugin.launch.environment import TOLD


def tell(key: str, text: str) -> None:
    """Prints ``[apml] text`` once per run: not in workers, not in ranks above 0, not below who said it already."""
    told = [word for word in os.environ.get(TOLD, "").split(",") if word]
    if key in told or _is_worker() or os.environ.get("RANK", "0") != "0":
        return
    os.environ[TOLD] = ",".join([*told, key])
    warn(text)


def warn(text: str) -> None:
    """Prints ``[apml] text`` on stderr, whatever process this is."""
    if sys.stderr is not None:
        print(f"[apml] {text}", file=sys.stderr, flush=True)


def _is_worker() -> bool:
    # Not imported for its own sake: whoever runs as a worker has multiprocessing loaded.
    process = sys.modules.get("multiprocessing.process")
    return process is not None and process.parent_process() is not None
