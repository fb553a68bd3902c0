"""One logger a run: the screen and a file on rank 0, errors only on the other ranks."""

import logging
import sys


def get_root_logger(name, log_file, rank=0):
    logger = logging.getLogger(name)
    logger.propagate = False
    logger.setLevel(logging.INFO if rank == 0 else logging.ERROR)
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout)]
    if rank == 0:
        handlers.append(logging.FileHandler(log_file))
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s - %(name)s - %(levelname)s - %(message)s"))
        logger.addHandler(handler)
    return logger


def print_log(message, logger=None):
    logging.getLogger(logger).info(message)
