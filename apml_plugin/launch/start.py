"""What an interpreter of ``apml run`` does first, called from a .pth file or from ``site/sitecustomize.py``."""

from __future__ import annotations

import os
import sys

_failed: list[Exception] = []


def install() -> None:
    """Put the hooks of the run in place; a second call does nothing.

    What fails is one line on stderr, and ends the interpreter of a run that asked for a loss: going on would train
    with another.
    """
    try:
        from apml_plugin.launch import hooks

        if not _failed:
            hooks.install()
    except Exception as error:
        _failed.append(error)
        if sys.stderr is not None:
            print(f"[apml] running without the plugin ({type(error).__name__}: {error})", file=sys.stderr, flush=True)
        if os.environ.get("APML_RUN_ASKED"):
            os._exit(1)
