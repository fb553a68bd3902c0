"""Lines for the user, in the host's log files and on stderr. The import needs the standard library only."""

from __future__ import annotations

import logging
import os
import sys

TOLD = "APML_RUN_TOLD"
"""Environment variable, comma-separated: the keys of what this process or a parent has already printed."""


def announce(line: str) -> None:
    """Writes `line` once per run: on rank 0, to every open log file and to the console."""
    if not _first_rank():
        return
    on_console = False
    for logger in _loggers_with_files():
        logger.info(line)
        on_console = on_console or any(type(handler) is logging.StreamHandler for handler in logger.handlers)
    if not on_console:
        print(line, file=sys.stderr, flush=True)


def _loggers_with_files() -> list[logging.Logger]:
    candidates = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    return [
        logger
        for logger in candidates
        if isinstance(logger, logging.Logger)
        and logger.isEnabledFor(logging.INFO)
        and any(
            isinstance(h, logging.FileHandler) and h.baseFilename != os.path.abspath(os.devnull)
            for h in logger.handlers
        )
    ]


def _first_rank() -> bool:
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        return dist.get_rank() == 0
    return os.environ.get("RANK", "0") == "0"


def tell(key: str, text: str) -> None:
    """Prints ``[apml] text`` once per run: on rank 0, not in workers, and not in children of a process that did."""
    printed = [entry for entry in os.environ.get(TOLD, "").split(",") if entry]
    if key in printed or _is_worker() or os.environ.get("RANK", "0") != "0":
        return
    os.environ[TOLD] = ",".join([*printed, key])
    warn(text)


def warn(text: str) -> None:
    """Prints ``[apml] text`` on stderr, in any process."""
    if sys.stderr is not None:
        print(f"[apml] {text}", file=sys.stderr, flush=True)


def _is_worker() -> bool:
    # Not imported here: a worker has multiprocessing loaded.
    process = sys.modules.get("multiprocessing.process")
    return process is not None and process.parent_process() is not None
