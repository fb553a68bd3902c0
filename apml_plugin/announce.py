"""What a user cannot miss: lines in the host's own log and on stderr. Standard library only, at import."""

from __future__ import annotations

import logging
import os
import sys

TOLD = "APML_RUN_TOLD"
"""Environment variable, comma-separated: what this process, or one above it, has already told."""


def announce(line: str) -> None:
    """Say `line` once per run: only on rank 0, in every log file that is open, and on the console."""
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
