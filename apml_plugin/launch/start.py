"""What each Python of an ``apml run`` does first, called from a .pth file or from ``site/sitecustomize.py``."""

from __future__ import annotations

import os
import sys

_failed: list[Exception] = []


def install() -> None:
    """Installs the import hook. Idempotent.

    A failure is one line on stderr. It ends the interpreter if the run asked for a loss: training would go on with
    another one.
    """
    try:
        from apml_plugin.launch import import_hook

        if not _failed:
            import_hook.install()
    except Exception as error:
        _failed.append(error)
        if sys.stderr is not None:
            print(f"[apml] running without the plugin ({type(error).__name__}: {error})", file=sys.stderr, flush=True)
        if os.environ.get("APML_RUN_ASKED"):
            os._exit(1)
