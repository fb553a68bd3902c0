"""One line a user cannot miss: in the host's own log if it writes one, else on stderr."""

from __future__ import annotations

import logging
import os
import sys


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
