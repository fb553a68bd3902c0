"""The ``apml`` command: a file per sub-command, each with ``register(app)``. A new file here is a new command."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Sequence

import typer

from apml_plugin.errors import ApmlError

COMMANDS = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def build_app() -> typer.Typer:
    """The whole command. Sub-commands import heavy modules only when they run."""
    app = typer.Typer(
        help="Point-set losses for the point-cloud completion codebases you already have.",
        no_args_is_help=True,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # rich would swallow [default: ...] and keep the line ends of docstrings
    )

    @app.callback()
    def _root(
        version: bool = typer.Option(False, "--version", is_eager=True, callback=_version, help="Print the version."),
    ) -> None:
        """Without a callback, Typer would turn a single sub-command into the command itself."""

    for name in COMMANDS:
        importlib.import_module(f"{__name__}.{name}").register(app)
    return app


def _version(asked: bool) -> None:
    if asked:
        from apml_plugin import __version__

        typer.echo(f"apml {__version__}")
        raise typer.Exit


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code. An ApmlError becomes one line on stderr and exit code 1."""
    try:
        build_app()(args=list(sys.argv[1:] if argv is None else argv), prog_name="apml")
    except ApmlError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except SystemExit as stop:  # Typer ends this way, also after wrong arguments
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0
