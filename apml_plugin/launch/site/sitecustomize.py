"""The first thing that an interpreter of ``apml run`` executes; does nothing in any other.

Python imports one module of this name at start-up. Ours comes first on PYTHONPATH, installs the import hook, and then
runs the one that it hides, if there is one.
"""

import os
import sys


def _install() -> None:
    if "APML_RUN_STANDINS" not in os.environ:
        return
    try:
        import importlib.util

        if importlib.util.find_spec("apml_plugin") is None:
            sys.path.append(os.environ["APML_RUN_HOME"])
        from apml_plugin.launch import start
    except Exception as error:  # a Python too old for the plugin; if it trains, the parent of the run notices
        if sys.stderr is not None:
            print(f"[apml] running without the plugin ({type(error).__name__}: {error})", file=sys.stderr)
    else:
        start.install()


def _run_hidden() -> None:
    """The ``sitecustomize`` that would have run without us, under its own name and with its own errors."""
    import importlib.util
    from importlib.machinery import PathFinder

    here = os.path.dirname(os.path.abspath(__file__))
    rest = [entry for entry in sys.path if os.path.abspath(entry or os.curdir) != here]
    spec = PathFinder.find_spec("sitecustomize", rest)
    if spec is None or spec.loader is None:
        return
    module = importlib.util.module_from_spec(spec)
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


_install()
_run_hidden()
