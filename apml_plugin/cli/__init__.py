"""The ``apml`` command: a file per sub-command, each with ``register(app)``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import typer

from apml_plugin.errors import ApmlError

COMMANDS = ("demo", "patch", "check", "run", "losses", "eval", "checkpoint", "compare", "bench", "doctor")


def build_app() -> typer.Typer:
    """The whole command. Sub-commands import what is heavy only when they run."""
    app = typer.Typer(
        help="Point-set losses for the point-cloud completion codebases you already have.",
        no_args_is_help=True,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_enable=False,
    )

    @app.callback()
    def _root() -> None:
        """Keeps the sub-commands sub-commands, however many there are."""

    for name in COMMANDS:
        importlib.import_module(f"apml_plugin.cli.{name}").register(app)
    return app


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code. Our own errors become one line on stderr and exit code 1."""
    try:
        build_app()(args=list(sys.argv[1:] if argv is None else argv), prog_name="apml")
    except ApmlError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except SystemExit as stop:  # how the command line library ends, errors in the words themselves included
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0
